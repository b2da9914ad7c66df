// Step 2 for one token.
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/launch_steps.h"
#include "kernels/cuda/one_token_rows.cuh"

namespace sparse_ffn::cuda {
namespace {

// The blocks take the listed neurons in turn.
template <typename Rows>
__global__ void __launch_bounds__(Rows::kThreads, 1)
    OneTokenUp(const __grid_constant__ OneTokenUpParams p) {
  static_assert(Rows::kMaxRows == Rows::kThreads);
  __shared__ typename Rows::Shared shared;
  // Read, but not used, beyond the last.
  __shared__ int neurons[Rows::kMaxRows + Rows::kRowsBeyond];
  Rows rows(&shared, p.up_proj, p.hidden_size);
  // They were written before step 1 let this kernel start.
  rows.FetchHiddenStates(p.hidden_states);
  WaitForPredecessor();
  const int blocks = static_cast<int>(gridDim.x);
  const int block = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  const int round = blocks * Rows::kMaxRows;
  for (int first = block; first < p.intermediate_size; first += round) {
    // Of this thread. Beyond the list's end there is something, too: the list
    // and its length are on their way at once.
    const int place = first + thread * blocks;
    const bool exists = place < p.intermediate_size;
    const int neuron = exists ? p.list[place] : 0;
    const float score = exists ? p.scores[place] : 0;
    const int left = *p.list_count - first;
    if (left <= 0) break;
    const int count = min((left + blocks - 1) / blocks, Rows::kMaxRows);
    neurons[thread] = neuron;
    AwaitCopies<0>();
    __syncthreads();
    const auto neuron_of = [&](int row) { return neurons[row]; };
    typename Rows::Weights weights;
    rows.Load(count, neuron_of, weights);
    rows.Multiply(count, neuron_of, weights);
    __syncthreads();
    if (thread < count) {
      float up = rows.Dot(thread);
      if (p.clamp_up && up <= 0) up = 0;
      p.gated[place] = score * up;
    }
  }
  AwaitCopies<0>();  // Also where there were no rows.
}

}  // namespace

cudaError_t LaunchOneTokenUp(const OneTokenUpParams& params,
                             cudaStream_t stream) {
  return DispatchOneTokenRows(
      params.element, params.hidden_size, [&](auto* rows) {
        using Rows = std::remove_pointer_t<decltype(rows)>;
        return LaunchDependent(OneTokenUp<Rows>, dim3(params.device.sm_count),
                               Rows::kThreads, 0,
                               params.device.dependent_launch, stream, params);
      });
}

}  // namespace sparse_ffn::cuda
