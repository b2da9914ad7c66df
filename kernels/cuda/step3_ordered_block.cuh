// What the warps of a block of step3_ordered_batch.cu share.
#ifndef SPARSE_FFN_KERNELS_CUDA_STEP3_ORDERED_BLOCK_CUH_
#define SPARSE_FFN_KERNELS_CUDA_STEP3_ORDERED_BLOCK_CUH_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/dealt_neurons.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/named_barrier.cuh"

namespace sparse_ffn::cuda {

// The sum warps come first.
constexpr int kDownSumWarps = 16;
constexpr int kDownCopyWarps = 4;
constexpr int kDownThreads = (kDownSumWarps + kDownCopyWarps) * kWarp;

// Columns of the output that a block sums, and the row of them.
constexpr int kTileColumns = 2 * kWarp * kPack;
constexpr int kRowBytes = kTileColumns * 2;

// How the sum warps share so many tokens, and a tile.
template <int kTokens>
struct Shares {
  static constexpr int kWarpTokens = std::max(kTokens / kDownSumWarps, 1);
  static constexpr int kTokenWarps = std::max(kDownSumWarps / kTokens, 1);
  // Of a lane: columns kPack * kWarp apart.
  static constexpr int kPacks = kTileColumns / kPack / kWarp / kTokenWarps;
  static_assert(kPacks >= 1);
};

#if __CUDA_ARCH__ >= 900

// Those of a sum warp. Two warps may not differ much in what they have to add
// up, since the rows wait for the last one: where a warp has two tokens, the
// one with the most active neurons goes with the one with the fewest, and so
// on.
template <int kTokens>
class WarpTokens {
  using S = Shares<kTokens>;

 public:
  WarpTokens() = default;
  // By all lanes. `active`: neurons of each of `tokens`.
  __device__ WarpTokens(int warp, const int* active, int tokens) {
    if constexpr (S::kWarpTokens == 1) {
      tokens_[0] = warp / S::kTokenWarps;
    } else {
      static_assert(S::kWarpTokens == 2 && kTokens == kWarp);
      const int lane = static_cast<int>(threadIdx.x) % kWarp;
      const int mine = lane < tokens ? active[lane] : 0;
      int rank = 0;  // Of token `lane`.
#pragma unroll
      for (int i = 0; i < kWarp; ++i) {
        const int other = __shfl_sync(kAllLanes, mine, i);
        rank += other > mine || (other == mine && i < lane) ? 1 : 0;
      }
      tokens_[0] = LaneWhere(rank == warp);
      tokens_[1] = LaneWhere(rank == kTokens - 1 - warp);
    }
  }
  __device__ int operator[](int k) const { return tokens_[k]; }

 private:
  __device__ static int LaneWhere(bool is) {
    return __ffs(static_cast<int>(__ballot_sync(kAllLanes, is))) - 1;
  }

  int tokens_[S::kWarpTokens];
};

#endif  // __CUDA_ARCH__ >= 900

// Stages have as many rows as a block has of the fused launch, or parts of
// those, and follow each other in a ring.
constexpr int kLaneRows = 2;  // A lane takes rows kWarp apart.
constexpr int kMostStageRows = kLaneRows * kWarp;
constexpr int kStages = 8;  // In the ring at once.
// Where a warp has lists for two tokens, they take the place of some.
template <int kTokens>
constexpr int kRingRows = Shares<kTokens>::kWarpTokens == 1 ? 192 : 176;
static_assert(kMostStageRows <= kDownCopyWarps * kWarp);  // A lane a row.

// Sum warps tell copy warps that they have left a stage.
using DownBarriers = SlotBarriers<kDownThreads, 1, kStages>;

// The rows of down_proj in a stage: of gated neurons side by side. Read at
// once.
struct alignas(16) StageRows {
  int first;   // Of them all, in the list and in `gated`,
  int neuron;  // and where its number is among those of the group.
  int before;  // Rows of earlier stages.
  int16_t count;
  int16_t is_last;  // Of their block of the fused launch.
};

// A row that is active for a token.
struct alignas(8) ActiveRow {
  float h;
  int at;  // In bytes from the start of DownShared.
};
// Active rows that a warp reads at once, as many as registers hold.
constexpr int kMostAtOnce = 4;

// In shared memory; the StageRows and the numbers of the neurons follow it.
template <int kTokens>
struct DownShared {
  std::byte rows[kRingRows<kTokens>][kRowBytes];
  uint4 zero_row[kRowBytes / sizeof(uint4)];
  // With one more round of rows of zeros.
  alignas(16) ActiveRow active[kDownSumWarps][Shares<kTokens>::kWarpTokens]
                              [kMostStageRows + kMostAtOnce];
  uint64_t full[kStages];
  int stages;
  int group_rows;  // Of all of them.
};

// Most of a group.
struct GroupSize {
  int blocks;   // Of the fused launch,
  int neurons;  // and of each of those.

  __host__ __device__ GroupSize(int all_neurons, int all_blocks, int groups)
      : blocks(MostDealt(all_blocks, groups)),
        neurons(MostDealt(all_neurons, all_blocks)) {}
  __host__ __device__ int Stages() const {
    return blocks * ((neurons + kMostStageRows - 1) / kMostStageRows);
  }
  __host__ __device__ size_t Bytes() const {
    return Stages() * sizeof(StageRows) + blocks * neurons * sizeof(int);
  }
};

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_STEP3_ORDERED_BLOCK_CUH_
