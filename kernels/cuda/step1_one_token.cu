// Step 1 for one token, and the list of its active neurons.
#include <algorithm>

#include "kernels/cuda/clear.cuh"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/launch_steps.h"
#include "kernels/cuda/one_token_rows.cuh"

namespace sparse_ffn::cuda {
namespace {

// A block takes neurons side by side, as many as any other or one more.
template <typename Rows>
class Block {
  static constexpr int kWarps = Rows::kThreads / kWarp;
  static_assert(Rows::kMaxRows == Rows::kThreads && kWarps <= kWarp);

 public:
  struct Shared {
    typename Rows::Shared rows;
    int active[kWarps];  // Neurons of each warp.
    int first;           // Place of the block's first one in the list.
  };

  __device__ Block(const OneTokenGateParams& p, Shared* shared)
      : p_(p),
        shared_(*shared),
        rows_(&shared->rows, p.gate_proj, p.hidden_size) {}

  __device__ void Run() {
    const int end = FirstOf(blockIdx.x + 1);
    const int begin = FirstOf(blockIdx.x);
    for (int first = begin; first < end; first += Rows::kMaxRows) {
      const int count = min(Rows::kMaxRows, end - first);
      const auto neuron_of = [&](int row) { return first + row; };
      typename Rows::Weights weights;
      rows_.Load(count, neuron_of, weights);
      if (first == begin) Begin();
      rows_.Multiply(count, neuron_of, weights);
      __syncthreads();
      List(first, count);
    }
  }

 private:
  __device__ int FirstOf(unsigned block) const {
    return static_cast<int>(static_cast<long long>(p_.intermediate_size) *
                            block / gridDim.x);
  }

  // What has to wait for the kernel before.
  __device__ void Begin() {
    AwaitPredecessor();
    // Not before: the successor reads the hidden states before it waits.
    AllowSuccessor();
    rows_.FetchHiddenStates(p_.hidden_states);
    ClearForBatch<Rows::kThreads>(p_, p_.hidden_size);
    AwaitCopies<0>();
    __syncthreads();
  }

  // Those of neurons first, ..., first + count - 1 that are active.
  __device__ void List(int first, int count) {
    const int row = static_cast<int>(threadIdx.x);
    const int warp = row / kWarp;
    const int lane = row % kWarp;
    const float score = row < count ? rows_.Dot(row) : 0;
    const bool active = row < count && IsActive(score, p_.threshold);
    const unsigned mask = __ballot_sync(kAllLanes, active);
    if (lane == 0) shared_.active[warp] = __popc(mask);
    __syncthreads();
    const int others = lane < kWarps ? shared_.active[lane] : 0;
    const int total = __reduce_add_sync(kAllLanes, others);
    if (row < 2 && total > 0) {
      const int place = atomicAdd(&p_.counters[row], total);
      if (row == 0) shared_.first = place;
    }
    const int before = __reduce_add_sync(kAllLanes, lane < warp ? others : 0) +
                       __popc(mask & ((1u << lane) - 1));
    __syncthreads();
    if (!active) return;
    p_.list[shared_.first + before] = first + row;
    p_.scores[shared_.first + before] = score;
  }

  const OneTokenGateParams& p_;
  Shared& shared_;
  Rows rows_;
};

template <typename Rows>
__global__ void __launch_bounds__(Rows::kThreads, 1)
    OneTokenGate(const __grid_constant__ OneTokenGateParams p) {
  __shared__ typename Block<Rows>::Shared shared;
  Block<Rows>(p, &shared).Run();
}

}  // namespace

bool OneTokenTakes(int hidden_size) {
  return RowsAligned(hidden_size) && RowPacks(hidden_size) <= kMaxRowPacks;
}

cudaError_t LaunchOneTokenGate(const OneTokenGateParams& params,
                               cudaStream_t stream) {
  const int blocks = std::min(params.device.sm_count, params.intermediate_size);
  return DispatchOneTokenRows(
      params.element, params.hidden_size, [&](auto* rows) {
        using Rows = std::remove_pointer_t<decltype(rows)>;
        return LaunchDependent(OneTokenGate<Rows>, dim3(blocks), Rows::kThreads,
                               0, params.device.dependent_launch, stream,
                               params);
      });
}

}  // namespace sparse_ffn::cuda
