// What the warps of a block of fused_bulk.cu share: the shape of the block, its
// shared memory, its rows.
#ifndef SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_BLOCK_CUH_
#define SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_BLOCK_CUH_

#include <cstddef>

#include "kernels/cuda/bulk_copy.cuh"
#include "kernels/cuda/fused_bulk_dot.cuh"
#include "kernels/cuda/launch_fused.h"
#include "kernels/cuda/named_barrier.cuh"
#include "kernels/cuda/ring_place.cuh"

namespace sparse_ffn::cuda {

// The sum warps come first, then the list warp, then the gate warps.
constexpr int kSumWarps = 4;
constexpr int kSumThreads = kSumWarps * kWarp;
constexpr int kListWarp = kSumWarps;
constexpr int kFirstGateWarp = kListWarp + 1;

constexpr int kMaxRows = 512;  // Of gate_proj, in a block.
// Rows whose scores the list warp looks at at once.
constexpr int kRoundRows = 8;
constexpr int kMaxRounds = kMaxRows / kRoundRows;
constexpr int kMaxGateSlots = 24;  // Rows in the ring of the gate warps.
constexpr int kMaxListSlots = 14;  // Rows in the ring of the list warp.

struct FusedBulkParams : FusedTokensParams {
  int row_bytes;
  int gate_warps;
  int gate_slots;  // >= gate_warps
  int list_slots;
  int early_rows;  // Most on their way before the hidden states.
};

// Neurons that the sum warps take at once, at most, with DotOrder::kInOrder.
// Two made one token of short rows slower.
template <int kTokens, int kPacks>
constexpr int kNeuronsAtOnce = kTokens == 2 || kPacks > 4 ? 2 : 1;

// What the sum warps leave each other of a row of up_proj, added up as a batch.
// kPacks: most packs of a row that fall to a sum thread.
template <int kTokens, int kPacks>
struct UpProducts {
  static constexpr int kWarpSegments =
      (kPacks * kSumThreads + kSumWarps * kDotSweepPacks - 1) /
      (kSumWarps * kDotSweepPacks);
  static constexpr int kSegments = kSumWarps * kWarpSegments;
  // Of each share, chunk after chunk.
  alignas(16) float of[kTokens][kDotShares][kSegments];
};

// Shared memory: this, then the hidden states, PairWords of each pack, the list
// slots, the gate slots, and as a batch two times kNeuronsAtOnce UpProducts, in
// turn. A list slot's first row is one of gate_proj.
template <int kTokens>
struct Head {
  uint4 zero_pack;
  unsigned long long launch;  // Of all on the same buffers, from 0.
  uint64_t gate_full[kMaxGateSlots];
  uint64_t early_full[kMaxListSlots];  // Of the slot's first row.
  uint64_t hidden_full;
  uint64_t told;  // Of a launch made ahead: whether it is left.
  bool left;      // That; known when `told` or hidden_full has ended.
  uint64_t list_full[kMaxListSlots];   // The row's, and what goes with it.
  uint64_t list_empty[kMaxListSlots];  // The gate row there is done with.
  uint64_t round_done[kMaxRounds];
  float scores[kTokens][kMaxRows];
  float list_scores[kMaxListSlots][kTokens];  // Of slots that hold an up row.
  bool list_more[kMaxListSlots];  // Likewise: the next neuron came with it.
  bool list_ends[kMaxListSlots];
  float up_sums[2][kSumWarps][kTokens];
};
template <int kTokens>
constexpr int kHeadBytes = (sizeof(Head<kTokens>) + 127) / 128 * 128;

#if __CUDA_ARCH__ >= 900

template <int kTokens>
struct Block {
  using Shared = Head<kTokens>;

  __device__ static Shared& head() {
    extern __shared__ __align__(128) std::byte shared[];
    return *reinterpret_cast<Shared*>(shared);
  }
  __device__ static std::byte* SharedRow(const FusedBulkParams& p, int i) {
    return reinterpret_cast<std::byte*>(&head()) + kHeadBytes<kTokens> +
           i * p.row_bytes;
  }
  __device__ static std::byte* Hidden(const FusedBulkParams& p) {
    return SharedRow(p, 0);
  }
  // For the product of that row with the hidden states.
  __device__ static DotOperands Operands(const FusedBulkParams& p,
                                         const std::byte* row) {
    const int packs = p.row_bytes / kPackBytes;
    return {row, Hidden(p),
            reinterpret_cast<const std::byte*>(&head().zero_pack), packs};
  }
  __device__ static std::byte* ListSlot(const FusedBulkParams& p, int slot) {
    return SharedRow(p, kTokens + slot);
  }
  __device__ static std::byte* GateSlot(const FusedBulkParams& p, int slot) {
    return SharedRow(p, kTokens + p.list_slots + slot);
  }
  template <int kPacks>
  __device__ static auto* Products(const FusedBulkParams& p) {
    return reinterpret_cast<UpProducts<kTokens, kPacks>*>(
        SharedRow(p, kTokens + p.list_slots + p.gate_slots));
  }
};

// Rows of this block: blockIdx.x + i * gridDim.x for i below this.
__device__ inline int BlockRows(const FusedBulkParams& p) {
  return (p.intermediate_size - static_cast<int>(blockIdx.x) +
          static_cast<int>(gridDim.x) - 1) /
         static_cast<int>(gridDim.x);
}
__device__ inline const std::byte* Row(const void* matrix,
                                       const FusedBulkParams& p, int i) {
  return static_cast<const std::byte*>(matrix) +
         (static_cast<size_t>(i) * gridDim.x + blockIdx.x) * p.row_bytes;
}

__device__ inline void SyncSumWarps() { WaitAt<kSumThreads>(1); }

// A slot of the list ring is handed back to the list warp by all sum warps. 1
// is their own.
using ListBarriers = SlotBarriers<kSumThreads + kWarp, 2, kMaxListSlots>;

#endif  // __CUDA_ARCH__ >= 900

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_BLOCK_CUH_
