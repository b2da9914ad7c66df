// The stages of a block of step3_ordered_batch.cu: which rows of down_proj they
// hold, from what the launch before left.
#ifndef SPARSE_FFN_KERNELS_CUDA_STEP3_ORDERED_STAGES_CUH_
#define SPARSE_FFN_KERNELS_CUDA_STEP3_ORDERED_STAGES_CUH_

#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/launch_fused.h"
#include "kernels/cuda/step3_ordered_block.cuh"

#if __CUDA_ARCH__ >= 900

namespace sparse_ffn::cuda {

// Of group blockIdx.y, in shared memory.
class GroupStages {
 public:
  // `memory`: GroupSize::Bytes() of it.
  __device__ GroupStages(const OrderedDownParams& p, void* memory)
      : p_(p),
        size_(p.intermediate_size, p.blocks, static_cast<int>(gridDim.y)),
        rows_(static_cast<StageRows*>(memory)),
        neurons_(reinterpret_cast<int*>(rows_ + size_.Stages())) {}

  // By all threads; waits for the launch before. A barrier has to follow.
  __device__ void Make(int* all_stages, int* all_rows) const {
    if (Warp() < kWarps - 1) {
      LoadNeurons();
    } else {
      MakeStages(all_stages, all_rows);
    }
  }
  __device__ const StageRows& operator[](int stage) const {
    return rows_[stage];
  }
  // The number of the neuron of row `row` of that stage.
  __device__ int Neuron(const StageRows& stage, int row) const {
    return neurons_[stage.neuron + row];
  }

 private:
  static constexpr int kWarps = kDownThreads / kWarp;

  __device__ static int Warp() { return threadIdx.x / kWarp; }
  __device__ static int Lane() { return threadIdx.x % kWarp; }

  // Blocks of the fused launch in the group,
  __device__ int Blocks() const {
    return DealtTo(p_.blocks, static_cast<int>(gridDim.y),
                   static_cast<int>(blockIdx.y));
  }
  // the i-th,
  __device__ static int FusedBlock(int i) {
    return static_cast<int>(blockIdx.y) + i * static_cast<int>(gridDim.y);
  }
  // and its first neuron in the list.
  __device__ int FirstOf(int i) const {
    return DealtBefore(p_.intermediate_size, p_.blocks, FusedBlock(i));
  }

  // The numbers of all neurons that may be gated, before it is known how many
  // are. By all warps but the last.
  __device__ void LoadNeurons() const {
    const int blocks = Blocks();
    int i = Warp();
    int first = FirstOf(i);
    AwaitPredecessor();
    for (; i < blocks; i += kWarps - 1, first = FirstOf(i)) {
      const int all = DealtTo(p_.intermediate_size, p_.blocks, FusedBlock(i));
      int* numbers = neurons_ + i * size_.neurons;
      constexpr int kLoads = 4;  // In flight at once.
      for (int at = Lane(); at < all; at += kLoads * kWarp) {
        int loaded[kLoads];
#pragma unroll
        for (int k = 0; k < kLoads; ++k) {
          loaded[k] =
              at + k * kWarp < all ? p_.list[first + at + k * kWarp] : 0;
        }
#pragma unroll
        for (int k = 0; k < kLoads; ++k) {
          if (at + k * kWarp < all) numbers[at + k * kWarp] = loaded[k];
        }
      }
    }
  }

  // By the last warp, a block a lane.
  __device__ void MakeStages(int* all_stages, int* all_rows) const {
    const int i = Lane();
    const int first = FirstOf(i);
    AwaitPredecessor();
    const int count = i < Blocks() ? p_.block_counts[FusedBlock(i)] : 0;
    const int parts = (count + kMostStageRows - 1) / kMostStageRows;
    // Of this lane and those before it, both sums at once.
    constexpr int kBits = 16;
    int sum = count | parts << kBits;
#pragma unroll
    for (int lanes = 1; lanes < kWarp; lanes *= 2) {
      const int other = __shfl_up_sync(kAllLanes, sum, lanes);
      if (Lane() >= lanes) sum += other;
    }
    const int rows = sum & ((1 << kBits) - 1);
    const int stages = sum >> kBits;
    // All parts alike, so that none is short.
    const int part = parts == 0 ? 0 : (count + parts - 1) / parts;
    for (int k = 0; k < parts; ++k) {
      const int at = k * part;
      rows_[stages - parts + k] = {first + at, i * size_.neurons + at,
                                   rows - count + at,
                                   static_cast<int16_t>(min(part, count - at)),
                                   static_cast<int16_t>(k + 1 == parts)};
    }
    if (Lane() == kWarp - 1) {
      *all_stages = stages;
      *all_rows = rows;
    }
  }

  const OrderedDownParams& p_;
  const GroupSize size_;
  StageRows* const rows_;
  int* const neurons_;  // Of each block of the group size_.neurons.
};

}  // namespace sparse_ffn::cuda

#endif  // __CUDA_ARCH__ >= 900

#endif  // SPARSE_FFN_KERNELS_CUDA_STEP3_ORDERED_STAGES_CUH_
