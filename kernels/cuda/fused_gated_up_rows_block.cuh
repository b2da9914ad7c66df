// What the warps of a block of fused_gated_up_rows.cu share.
#ifndef SPARSE_FFN_KERNELS_CUDA_FUSED_GATED_UP_ROWS_BLOCK_CUH_
#define SPARSE_FFN_KERNELS_CUDA_FUSED_GATED_UP_ROWS_BLOCK_CUH_

#include <cstddef>

#include "kernels/cuda/bulk_copy.cuh"
#include "kernels/cuda/dealt_neurons.cuh"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/named_barrier.cuh"
#include "kernels/cuda/ring_place.cuh"

namespace sparse_ffn::cuda {

// The dot warps come first. With the other two as many as leave a thread 128
// registers.
constexpr int kDotWarps = 14;
constexpr int kDotThreads = kDotWarps * kWarp;
constexpr int kCopyWarp = kDotWarps;
constexpr int kSumWarp = kCopyWarp + 1;
constexpr int kBlockThreads = (kSumWarp + 1) * kWarp;

constexpr int kTileRows = 8;   // That are multiplied at a time.
constexpr int kMaxTiles = 64;  // Of gate_proj, in a block.
constexpr int kMaxRows = kMaxTiles * kTileRows;
constexpr int kMaxStages = 8;  // Tiles on their way or at work.
constexpr int kTurns = 2;      // Places for the sums of a tile.

// Columns that a dot warp takes at a time, for two tensor-core products: each
// of four lanes has a pack of them. The columns of a product may be in any
// order, as long as both factors have the same.
constexpr int kChunkBytes = 4 * kPackBytes;
constexpr int kSweepBytes = kDotWarps * kChunkBytes;  // Of all dot warps.

struct FusedGatedUpRowsParams : FusedGatedUpParams {
  int row_bytes;   // In memory,
  int row_stride;  // and in a stage.
  int stages;
  int most_rows;  // Of a block.
};

// Shared memory: this, the scores of active rows, the stages.
template <int kTokenTiles>
struct RowsHead {
  static constexpr int kTokens = 8 * kTokenTiles;

  uint4 zero_pack;
  uint64_t full[kMaxStages];
  uint64_t summed[kTurns];  // The tile's sums have been taken.
  uint64_t scored[kMaxTiles];
  bool ends[kMaxStages];  // There is no tile.
  int listed[kMaxTiles];  // Active rows up to that tile.
  int active[kMaxRows];   // Those rows.
  alignas(16) float sums[kTurns][kDotWarps][kWarp][2 * kTokenTiles];
};
template <int kTokenTiles>
constexpr int kScoresAt = (sizeof(RowsHead<kTokenTiles>) + 127) / 128 * 128;
template <int kTokenTiles>
__host__ __device__ constexpr int StagesAt(int most_rows) {
  return kScoresAt<kTokenTiles> + most_rows * RowsHead<kTokenTiles>::kTokens *
                                      static_cast<int>(sizeof(float));
}

#if __CUDA_ARCH__ >= 900

// A lane of the product of a tile has row lane / 4, and of each token tile two
// tokens.
template <int kTokenTiles>
using RowSums = float[2 * kTokenTiles];

__device__ inline int Lane() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ inline int Group() { return Lane() / 4; }
__device__ inline int Pair() { return Lane() % 4; }
// Of element i of RowSums.
__device__ inline int TokenOf(int i) { return i / 2 * 8 + Pair() * 2 + i % 2; }

// The dot warps tell the sum warp that a tile's sums are there, at a hardware
// barrier of the turn.
constexpr int kFirstTurnBarrier = 1;
__device__ inline void TellDotted(int turn) {
  ArriveAt<kDotThreads + kWarp>(kFirstTurnBarrier + turn);
}
__device__ inline void AwaitDotted(int turn) {
  WaitAt<kDotThreads + kWarp>(kFirstTurnBarrier + turn);
}

// They hand a stage back to the copy warp at one of its own.
constexpr int kFirstStageBarrier = kFirstTurnBarrier + kTurns;
static_assert(kFirstStageBarrier + kMaxStages <= kHardwareBarriers);
__device__ inline void FreeStage(int stage) {
  ArriveAt<kDotThreads + kWarp>(kFirstStageBarrier + stage);
}
__device__ inline void AwaitFreeStage(int stage) {
  WaitAt<kDotThreads + kWarp>(kFirstStageBarrier + stage);
}

template <int kTokenTiles>
struct RowsBlock {
  using Head = RowsHead<kTokenTiles>;

  const FusedGatedUpRowsParams& p;
  Head& head;
  float (*const scores)[Head::kTokens];  // Of active rows; 0 where inactive.
  std::byte* const stages;
  const int rows;
  const int gate_tiles;

  __device__ RowsBlock(const FusedGatedUpRowsParams& params, std::byte* shared)
      : p(params),
        head(*reinterpret_cast<Head*>(shared)),
        scores(reinterpret_cast<float (*)[Head::kTokens]>(
            shared + kScoresAt<kTokenTiles>)),
        stages(shared + StagesAt<kTokenTiles>(p.most_rows)),
        rows(DealtTo(p.intermediate_size, static_cast<int>(gridDim.x),
                     static_cast<int>(blockIdx.x))),
        gate_tiles((rows + kTileRows - 1) / kTileRows) {}

  __device__ std::byte* StageRow(int stage, int row) const {
    return stages + (stage * kTileRows + row) * p.row_stride;
  }

  // By all threads; a barrier has to follow.
  __device__ void InitBarriers() const {
    const int thread = static_cast<int>(threadIdx.x);
    if (thread == 0) head.zero_pack = make_uint4(0, 0, 0, 0);
    if (thread < kMaxStages) InitBarrier(&head.full[thread], kTileRows);
    if (thread < kTurns) InitBarrier(&head.summed[thread], kWarp);
    if (thread < gate_tiles) InitBarrier(&head.scored[thread], kWarp);
    PublishBarriers();
  }
};

#endif  // __CUDA_ARCH__ >= 900

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_FUSED_GATED_UP_ROWS_BLOCK_CUH_
