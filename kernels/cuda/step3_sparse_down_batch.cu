#include <algorithm>
#include <cstddef>

#include "kernels/cuda/add_quad.cuh"
#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/launch_steps.h"
#include "kernels/cuda/tensor_core.cuh"

namespace sparse_ffn::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kBlocksPerSm = 2;
// Columns of the output that a block sums, and those of a warp.
constexpr int kTileColumns = kWarp * kPack;
constexpr int kWarpColumns = kTileColumns / kWarps;
constexpr int kColumnTiles = kWarpColumns / 16;
constexpr int kDepth = 16;         // Neurons of one product.
constexpr int kRows = 2 * kDepth;  // Neurons of a stage.

// Padded, so that eight rows side by side fall on different banks.
constexpr int kRowBytes = (kTileColumns + kPack) * 2;

// Measured. For 8 tokens no more fit in the 99 KB of 8.6 and 8.9.
template <int kTokenTiles>
constexpr int kStagesFor = kTokenTiles == 1   ? 5
                           : kTokenTiles == 2 ? 4
                                              : 3;

template <int kTokenTiles>
struct Stage {
  static constexpr int kTokens = 8 * kTokenTiles;
  static constexpr int kGatedPacks = kTokens / kPack;
  // Whole packs, an odd number for the banks.
  static constexpr int kGatedBytes = (kGatedPacks | 1) * 16;

  std::byte rows[kRows][kRowBytes];
  std::byte gated[2][kRows][kGatedBytes];  // high, low
};

// A block sums a tile of columns (blockIdx.x) over a piece of the list
// (blockIdx.y); each of its warps has columns of its own.
template <typename T, int kTokenTiles>
class Block {
 public:
  using SharedStage = Stage<kTokenTiles>;
  static constexpr int kTokens = SharedStage::kTokens;

  __device__ Block(const SparseDownParams& p, std::byte* shared)
      : p_(p), stages_(reinterpret_cast<SharedStage*>(shared)) {}

  __device__ void Run() {
    const long long count = *p_.list_count;
    const int first = static_cast<int>(count * blockIdx.y / gridDim.y);
    end_ = static_cast<int>(count * (blockIdx.y + 1) / gridDim.y);
    if (first == end_) return;
    LoadNeurons(first);
    int at = first;  // To copy next.
    for (int s = 0; s < kStages - 1; ++s, at += kRows) Copy(at, s);
    int stage = 0;
    for (int i = first; i < end_; i += kRows, at += kRows) {
      AwaitCopies<kStages - 2>();
      __syncthreads();
      Multiply(stages_[stage]);
      // To the stage before this one, which all warps have left.
      Copy(at, stage == 0 ? kStages - 1 : stage - 1);
      if (++stage == kStages) stage = 0;
    }
    Add();
  }

 private:
  static constexpr int kWarpRows = kRows / kWarps;  // That a warp copies.
  static constexpr int kStages = kStagesFor<kTokenTiles>;

  __device__ static int Warp() { return threadIdx.x / kWarp; }
  __device__ static int Lane() { return threadIdx.x % kWarp; }

  // Neurons of the rows that this warp copies next, a stage ahead, so that
  // copies need not wait for the list.
  __device__ void LoadNeurons(int at) {
#pragma unroll
    for (int k = 0; k < kWarpRows; ++k) {
      const int i = at + k * kWarps + Warp();
      neurons_[k] = i < end_ ? p_.list[i] : -1;
    }
  }

  // The rows and gated neurons at place `at` of the list; zeros beyond its end.
  __device__ void Copy(int at, int stage_index) {
    SharedStage& stage = stages_[stage_index];
    const int column = blockIdx.x * kTileColumns + Lane() * kPack;
#pragma unroll
    for (int k = 0; k < kWarpRows; ++k) {
      const bool exists = neurons_[k] >= 0 && column < p_.hidden_size;
      const T* from = static_cast<const T*>(p_.down_proj);
      if (exists) {
        from += static_cast<size_t>(neurons_[k]) * p_.hidden_size + column;
      }
      CopyPack(stage.rows[k * kWarps + Warp()] + Lane() * 16, from, exists);
    }
    constexpr int kPacks = 2 * kRows * SharedStage::kGatedPacks;
    for (int i = threadIdx.x; i < kPacks; i += kThreads) {
      const int pack = i % SharedStage::kGatedPacks;
      const int row = i / SharedStage::kGatedPacks % kRows;
      const int low = i / SharedStage::kGatedPacks / kRows;
      const bool exists = at + row < end_;
      const auto* from =
          static_cast<const T*>(low != 0 ? p_.gated_low : p_.gated_high);
      if (exists) {
        from += static_cast<size_t>(at + row) * kTokens + pack * kPack;
      }
      CopyPack(stage.gated[low][row] + pack * 16, from, exists);
    }
    EndCopies();
    LoadNeurons(at + kRows);
  }

  __device__ void Multiply(const SharedStage& stage) {
#pragma unroll
    for (int depth = 0; depth < kRows; depth += kDepth) {
      uint32_t gated[2][2 * kTokenTiles];
#pragma unroll
      for (int low = 0; low < 2; ++low) {
        const std::byte* row = stage.gated[low][depth + Lane() % 16];
        if constexpr (kTokenTiles == 1) {
          LoadTilesTransposed<2>(row, gated[low]);
        } else {
#pragma unroll
          for (int t = 0; t < kTokenTiles; t += 2) {
            LoadTilesTransposed<4>(row + (t + Lane() / 16) * 16,
                                   gated[low] + 2 * t);
          }
        }
      }
#pragma unroll
      for (int tile = 0; tile < kColumnTiles; ++tile) {
        uint32_t weights[4];
        LoadTilesTransposed<4>(
            stage.rows[depth + Lane() / 16 * 8 + Lane() % 8] +
                (Warp() * kWarpColumns + tile * 16 + Lane() / 8 % 2 * 8) * 2,
            weights);
#pragma unroll
        for (int t = 0; t < kTokenTiles; ++t) {
          for (const auto& words : gated) {
            MultiplyAdd(sums_[tile][t], weights,
                        {words[2 * t], words[2 * t + 1]}, T());
          }
        }
      }
    }
  }

  // Sums go to the output, beside those of other pieces: by way of shared
  // memory, so that lanes side by side add to columns side by side.
  __device__ void Add() {
    AwaitCopies<0>();
    __syncthreads();
    auto* tile = reinterpret_cast<float(*)[kSumColumns]>(stages_);
#pragma unroll
    for (int i = 0; i < kColumnTiles * kTokenTiles * 4; ++i) {
      const int t = i / 4 % kTokenTiles;
      const int k = i % 4;
      const int token = t * 8 + Lane() % 4 * 2 + k % 2;
      const int column = Warp() * kWarpColumns + i / 4 / kTokenTiles * 16 +
                         Lane() / 4 + k / 2 * 8;
      tile[token][column] = sums_[i / 4 / kTokenTiles][t][k];
    }
    __syncthreads();
    constexpr int kQuads = kTileColumns / 4;
    for (int i = threadIdx.x; i < p_.tokens * kQuads; i += kThreads) {
      const int token = i / kQuads;
      const int place = i % kQuads * 4;
      const int column = blockIdx.x * kTileColumns + place;
      if (column >= p_.hidden_size) continue;
      AddQuad(p_.output + static_cast<size_t>(token) * p_.hidden_size + column,
              *reinterpret_cast<const float4*>(&tile[token][place]));
    }
  }

  // Padded, so that the tokens of a warp's sums fall on different banks.
  static constexpr int kSumColumns = kTileColumns + 4;
  static_assert(kTokens * kSumColumns * sizeof(float) <=
                kStages * sizeof(SharedStage));

  const SparseDownParams& p_;
  SharedStage* const stages_;
  int end_ = 0;
  int neurons_[kWarpRows];
  float sums_[kColumnTiles][kTokenTiles][4] = {};
};

template <typename T, int kTokenTiles>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    SparseDownBatch(const __grid_constant__ SparseDownParams p) {
  extern __shared__ __align__(16) std::byte shared[];
  WaitForPredecessor();
  Block<T, kTokenTiles>(p, shared).Run();
}

template <int kTokenTiles>
constexpr int kSharedBytes =
    kStagesFor<kTokenTiles>* static_cast<int>(sizeof(Stage<kTokenTiles>));
// What every device from 8.0 on gives a block.
constexpr int kLeastSharedBytes = 99 << 10;
static_assert(kSharedBytes<1> <= kLeastSharedBytes &&
              kSharedBytes<2> <= kLeastSharedBytes &&
              kSharedBytes<4> <= kLeastSharedBytes);

}  // namespace

cudaError_t PrepareSparseDownBatch(Element element) {
  return ForEachTokenTiles([element](auto token_tiles) {
    return DispatchElement(element, [](auto zero) {
      constexpr int kTiles = decltype(token_tiles)::value;
      return AllowShared(SparseDownBatch<decltype(zero), kTiles>,
                         kSharedBytes<kTiles>);
    });
  });
}

cudaError_t LaunchSparseDownBatch(const SparseDownParams& params,
                                  cudaStream_t stream) {
  const int tiles = (params.hidden_size + kTileColumns - 1) / kTileColumns;
  // Rounded down: all blocks run at once.
  const int pieces = std::max(1, kBlocksPerSm * params.device.sm_count / tiles);
  return DispatchElement(params.element, [&](auto zero) {
    return DispatchTokenTiles(params.tokens, [&](auto token_tiles) {
      constexpr int kTiles = decltype(token_tiles)::value;
      return LaunchDependent(SparseDownBatch<decltype(zero), kTiles>,
                             dim3(tiles, pieces), kThreads,
                             kSharedBytes<kTiles>,
                             params.device.dependent_launch, stream, params);
    });
  });
}

}  // namespace sparse_ffn::cuda
