// What the warps of a block of fused_gated_up_rows.cu share.
#ifndef SPARSE_FFN_KERNELS_CUDA_FUSED_GATED_UP_ROWS_BLOCK_CUH_
#define SPARSE_FFN_KERNELS_CUDA_FUSED_GATED_UP_ROWS_BLOCK_CUH_

#include <cstddef>

#include "kernels/cuda/ahead.cuh"
#include "kernels/cuda/bulk_copy.cuh"
#include "kernels/cuda/cluster.cuh"
#include "kernels/cuda/dealt_neurons.cuh"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/dot_order.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/launch_fused.h"
#include "kernels/cuda/named_barrier.cuh"
#include "kernels/cuda/ring_place.cuh"

namespace sparse_ffn::cuda {

// Token tiles, of eight tokens each, and the warps that share the columns for
// each of them: kDotShares, as in dot_order.cuh, or twice as many where no
// order is asked for and there is but one tile. All that for one block of a
// cluster: each of them takes the rows of both, for tokens of its own.
template <int kTheTokenTiles, int kTheShares, int kTheBlocks = 1>
struct RowsShape {
  static constexpr int kBlocks = kTheBlocks;
  static constexpr int kTokenTiles = kTheTokenTiles;
  static constexpr int kTokens = 8 * kTokenTiles;
  static constexpr int kShares = kTheShares;
  static constexpr bool kInOrder = kShares == kDotShares;
  static_assert(kInOrder || kShares == 2 * kDotShares);
  // A chunk of each share.
  static constexpr int kSweepBytes = kShares * kDotChunkBytes;
  // The dot warps come first.
  static constexpr int kDotWarps = kTokenTiles * kShares;
  static constexpr int kDotThreads = kDotWarps * kWarp;
  static constexpr int kCopyWarp = kDotWarps;
  static constexpr int kSumWarp = kCopyWarp + 1;
  static constexpr int kThreads = (kSumWarp + 1) * kWarp;
  // A multiprocessor's four parts have 512 for a lane each: 168 for one of
  // three warps, 128 for one of four.
  static constexpr int kRegisters = kThreads <= 12 * kWarp ? 168 : 128;
};

constexpr int kTileRows = 8;   // That are multiplied at a time.
constexpr int kMaxTiles = 64;  // Of gate_proj, in a block or cluster.
constexpr int kMaxRows = kMaxTiles * kTileRows;
constexpr int kMaxStages = 8;  // Tiles on their way or at work.
constexpr int kTurns = 2;      // Places for the sums of a tile.

struct FusedGatedUpRowsParams : FusedGatedUpParams {
  int row_bytes;   // In memory,
  int row_stride;  // and in a stage.
  int stages;
  int most_rows;  // Of a block or cluster.
};

// What the blocks of a cluster tell each other, tile after tile.
enum RowsWord {
  kActiveRows,  // TileRows::bits() of what one has found,
  kGatedRows,   // and of where h is not 0.
  kPlace,       // Of the first one's h, where there is one.
  kRowsWords
};

// Shared memory: this, the scores of active rows, the stages.
template <typename S>
struct RowsHead {
  uint4 zero_pack;
  uint64_t full[kMaxStages];
  uint64_t summed[kTurns];  // The tile's sums have been taken.
  uint64_t scored[kMaxTiles];
  bool ends[kMaxStages];  // There is no tile.
  int listed[kMaxTiles];  // Active rows up to that tile.
  int active[kMaxRows];   // Those rows.
  float2 sums[kTurns][S::kTokenTiles][S::kShares][kWarp];
  Mailbox mailboxes[kRowsWords];  // For a cluster.
};
template <typename S>
constexpr int kScoresAt = (sizeof(RowsHead<S>) + 127) / 128 * 128;
template <typename S>
__host__ __device__ constexpr int StagesAt(int most_rows) {
  return kScoresAt<S> +
         most_rows * S::kTokens * static_cast<int>(sizeof(float));
}

#if __CUDA_ARCH__ >= 900

// A lane of the product of a tile has row lane / 4, and of each token tile two
// tokens.
template <typename S>
using RowSums = float[2 * S::kTokenTiles];

__device__ inline int Lane() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ inline int Group() { return Lane() / 4; }
__device__ inline int Pair() { return Lane() % 4; }
// Of element i of RowSums.
__device__ inline int TokenOf(int i) { return i / 2 * 8 + Pair() * 2 + i % 2; }

// The dot warps tell the sum warp that a tile's sums are there, in its turn,
// and hand its stage back to the copy warp.
template <typename S>
using DottedBarriers = SlotBarriers<S::kDotThreads + kWarp, 1, kTurns>;
template <typename S>
using StageBarriers =
    SlotBarriers<S::kDotThreads + kWarp, 1 + kTurns, kMaxStages>;

template <typename S>
struct RowsBlock {
  using Head = RowsHead<S>;
  static_assert(S::kBlocks <= 2);

  const FusedGatedUpRowsParams& p;
  Head& head;
  float (*const scores)[S::kTokens];  // Of active rows; 0 where inactive.
  std::byte* const stages;
  const int rank;         // In the cluster.
  const int first_token;  // Of this block.
  const int tokens_left;  // From there on; it has up to kTokens of them.
  const int rows;
  const int gate_tiles;

  __device__ RowsBlock(const FusedGatedUpRowsParams& params, std::byte* shared)
      : p(params),
        head(*reinterpret_cast<Head*>(shared)),
        scores(reinterpret_cast<float (*)[S::kTokens]>(shared + kScoresAt<S>)),
        stages(shared + StagesAt<S>(p.most_rows)),
        rank(static_cast<int>(blockIdx.x) % S::kBlocks),
        first_token(rank * S::kTokens),
        tokens_left(p.tokens - first_token),
        rows(Rows(p)),
        gate_tiles((rows + kTileRows - 1) / kTileRows) {}

  // Rows are the neurons that are dealt to the blocks of the cluster, in turn.
  __device__ static int DealtBlock(int row) {
    const auto block = static_cast<int>(blockIdx.x);
    return block - block % S::kBlocks + row % S::kBlocks;
  }
  __device__ static int Neuron(int row) {
    return DealtNeuron(row / S::kBlocks, static_cast<int>(gridDim.x),
                       DealtBlock(row));
  }
  __device__ std::byte* StageRow(int stage, int row) const {
    return stages + (stage * kTileRows + row) * p.row_stride;
  }

  // When the predecessor has ended: whether there is nothing to do.
  __device__ bool WasLeft() const {
    return cuda::WasLeft(p.state, p.ahead_number);
  }

  // By all threads, before they use any of it.
  __device__ void Begin() const {
    const int thread = static_cast<int>(threadIdx.x);
    if (thread == 0) head.zero_pack = make_uint4(0, 0, 0, 0);
    if (thread < kMaxStages) InitBarrier(&head.full[thread], kTileRows);
    if (thread < kTurns) InitBarrier(&head.summed[thread], kWarp);
    if (thread < gate_tiles) InitBarrier(&head.scored[thread], kWarp);
    const bool has_mailbox = S::kBlocks > 1 && thread < kRowsWords;
    if (has_mailbox) head.mailboxes[thread].Init();
    PublishBarriers();
    Sync();
    if (has_mailbox) head.mailboxes[thread].Expect();
  }

 private:
  __device__ static void Sync() {
    if constexpr (S::kBlocks > 1) {
      SyncCluster();
    } else {
      __syncthreads();
    }
  }
  __device__ static int Rows(const FusedGatedUpRowsParams& p) {
    int rows = 0;
#pragma unroll
    for (int i = 0; i < S::kBlocks; ++i) {
      rows += DealtTo(p.intermediate_size, static_cast<int>(gridDim.x),
                      DealtBlock(i));
    }
    return rows;
  }
};

#endif  // __CUDA_ARCH__ >= 900

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_FUSED_GATED_UP_ROWS_BLOCK_CUH_
