// Both halves of step 2 for one token, in one kernel.
#include <algorithm>

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/dispatch.cuh"

namespace sparse_ffn::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;
// So many warps share a row, each the same packs of all its rows: it reads
// their hidden states once for several.
constexpr int kSlices = 4;
constexpr int kGroups = kWarps / kSlices;
constexpr int kSlicesColumns = kSlices * kWarp * kPack;
// Of a row, for each lane.
constexpr int kMaxPacks = 8;
// Neurons that a set has side by side: a sector of their scores.
constexpr int kNeighbours = 8;

// Neurons are dealt out to sets of up to kThreads. All blocks of a set look at
// all of its scores and take its active neurons in turn: blocks have nearly the
// same number of rows to read.
struct KernelParams {
  OneTokenUpParams step;
  int sets;
  int set_blocks_log2;
};

template <typename T, int kPacks>
struct Share {
  Pack<T> x[kPacks * kSlices * kWarp];  // Zeros beyond the hidden states.
  int active[kWarps];                   // Neurons of the set, by warp.
  int first;  // Place in the list of the block's first row.
  // Of the block's rows. Read, but not used, beyond the last.
  int neurons[2 * kThreads];
  alignas(16) float dots[kThreads][kSlices];
};

// A neuron of the set, one a thread.
struct Neuron {
  int index;
  float score;
  int row;  // Of this block's; -1: another block's, or inactive.
};

// kPacks: of a row, for each lane. kRows: in flight at once in each group of
// warps.
template <typename T, int kPacks, int kRows>
class Block {
 public:
  __device__ Block(const KernelParams& params, Share<T, kPacks>* share)
      : params_(params), p_(params.step), share_(*share) {}

  __device__ void Run() {
    FetchHiddenStates();
    WaitForPredecessor();
    const Neuron own = Select();
    int first = 0;
    // Two lanes: for one alone the compiler would wait here, to share the sum.
    if (threadIdx.x < 2 && count_ > 0) {
      first = atomicAdd(&p_.counters[threadIdx.x], count_);
    }
    if (own.row >= 0) share_.neurons[own.row] = own.index;
    AwaitCopies<0>();
    __syncthreads();
    for (int row = Group(); row < count_; row += kRows * kGroups) {
      Pack<T> weights[kPacks][kRows];
      LoadRows(row, weights);
      __syncwarp();
      Dots(row, weights);
    }
    if (threadIdx.x == 0) share_.first = first;
    __syncthreads();
    if (own.row >= 0) Store(own);
  }

 private:
  static constexpr int kStep = kSlices * kWarp;

  __device__ int Lane() const { return threadIdx.x % kWarp; }
  __device__ int Slice() const { return threadIdx.x / kWarp % kSlices; }
  __device__ int Group() const { return threadIdx.x / (kWarp * kSlices); }
  // Of this lane's first pack of a row; kStep to the next.
  __device__ int FirstPack() const { return Slice() * kWarp + Lane(); }

  // They were written before the gate ran: there is nothing to wait for.
  __device__ void FetchHiddenStates() {
    const T* x = static_cast<const T*>(p_.hidden_states);
    for (int first = 0; first < kPacks * kStep; first += kThreads) {
      const int i = first + threadIdx.x;
      const bool exists = i * kPack < p_.hidden_size;
      if (i < kPacks * kStep) {
        CopyPack(&share_.x[i], exists ? x + i * kPack : x, exists);
      }
    }
    EndCopies();
  }

  __device__ Neuron Select() {
    const int set = blockIdx.x >> params_.set_blocks_log2;
    const int chunk = threadIdx.x / kNeighbours * params_.sets + set;
    Neuron own;
    own.index = chunk * kNeighbours + threadIdx.x % kNeighbours;
    const bool exists = own.index < p_.intermediate_size;
    own.score = exists ? p_.scores[own.index] : 0;
    Clear();
    const bool active = exists && IsActive(own.score, p_.threshold);
    const unsigned mask = __ballot_sync(kAllLanes, active);
    const int warp = threadIdx.x / kWarp;
    if (Lane() == 0) share_.active[warp] = __popc(mask);
    __syncthreads();
    const int count = Lane() < kWarps ? share_.active[Lane()] : 0;
    const int total = __reduce_add_sync(kAllLanes, count);
    const int before = __reduce_add_sync(kAllLanes, Lane() < warp ? count : 0);
    const int place = before + __popc(mask & ((1u << Lane()) - 1));
    const int set_blocks = 1 << params_.set_blocks_log2;
    const int member = blockIdx.x & (set_blocks - 1);
    count_ = (total - member + set_blocks - 1) >> params_.set_blocks_log2;
    const bool mine = active && (place & (set_blocks - 1)) == member;
    own.row = mine ? place >> params_.set_blocks_log2 : -1;
    return own;
  }

  __device__ void Clear() const {
    const int first = blockIdx.x * kThreads + threadIdx.x;
    const int step = gridDim.x * kThreads;
#pragma unroll 1
    for (int i = first; i < p_.next_count; i += step) p_.next_counters[i] = 0;
#pragma unroll 1
    for (int i = first; i < p_.hidden_size; i += step) p_.output[i] = 0;
  }

  // Of this row and the group's next, this warp's slice.
  __device__ void LoadRows(int first_row, Pack<T> (&weights)[kPacks][kRows]) {
    const T* rows[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const size_t neuron = share_.neurons[first_row + r * kGroups];
      rows[r] = static_cast<const T*>(p_.up_proj) + neuron * p_.hidden_size +
                FirstPack() * kPack;
    }
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const bool exists = (FirstPack() + k * kStep) * kPack < p_.hidden_size;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        weights[k][r] =
            LoadWeightsIf(exists && first_row + r * kGroups < count_,
                          rows[r] + k * kStep * kPack);
      }
    }
  }

  __device__ void Dots(int first_row, const Pack<T> (&weights)[kPacks][kRows]) {
    float sums[kRows] = {};
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const Pack<T> x = share_.x[FirstPack() + k * kStep];
#pragma unroll
      for (int r = 0; r < kRows; ++r) sums[r] += DotPacks(weights[k][r], x);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float sum = SumOverWarp(sums[r]);
      const int row = first_row + r * kGroups;
      if (Lane() == 0 && row < count_) share_.dots[row][Slice()] = sum;
    }
  }

  __device__ void Store(const Neuron& own) const {
    float up = 0;
#pragma unroll
    for (int s = 0; s < kSlices; ++s) up += share_.dots[own.row][s];
    if (p_.clamp_up && up <= 0) up = 0;
    p_.list[share_.first + own.row] = own.index;
    p_.gated[share_.first + own.row] = own.score * up;
  }

  const KernelParams& params_;
  const OneTokenUpParams& p_;
  Share<T, kPacks>& share_;
  int count_ = 0;  // Of the block's rows.
};

template <typename T, int kPacks, int kRows>
__global__ void __launch_bounds__(kThreads, 1)
    OneTokenUp(const KernelParams p) {
  __shared__ Share<T, kPacks> share;
  Block<T, kPacks, kRows>(p, &share).Run();
}

// As few sets as hold all neurons, or as many as keep all processors busy with
// the same number of blocks a set, a power of two.
KernelParams Deal(const OneTokenUpParams& step) {
  const int least_sets = (step.intermediate_size + kThreads - 1) / kThreads;
  KernelParams params = {step, least_sets, 0};
  while (least_sets << (params.set_blocks_log2 + 1) <= step.device.sm_count) {
    ++params.set_blocks_log2;
  }
  params.sets =
      std::max(least_sets, step.device.sm_count >> params.set_blocks_log2);
  return params;
}

template <typename T, int kPacks, int kRows>
cudaError_t Launch(const OneTokenUpParams& step, cudaStream_t stream) {
  const KernelParams params = Deal(step);
  return LaunchDependent(OneTokenUp<T, kPacks, kRows>,
                         dim3(params.sets << params.set_blocks_log2), kThreads,
                         0, step.device.dependent_launch, stream, params);
}

}  // namespace

bool OneTokenTakes(int hidden_size) {
  return RowsAligned(hidden_size) && hidden_size <= kMaxPacks * kSlicesColumns;
}

cudaError_t LaunchOneTokenUp(const OneTokenUpParams& params,
                             cudaStream_t stream) {
  return DispatchElement(params.element, [&](auto zero) {
    using T = decltype(zero);
    const int packs = (params.hidden_size - 1) / kSlicesColumns + 1;
    if (packs <= 4) return Launch<T, 4, 4>(params, stream);
    if (packs <= 5) return Launch<T, 5, 4>(params, stream);
    return Launch<T, kMaxPacks, 2>(params, stream);
  });
}

}  // namespace sparse_ffn::cuda
