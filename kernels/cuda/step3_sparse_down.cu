#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/launch_steps.h"

namespace sparse_ffn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
// Columns of the output that a block sums: kPack for each lane.
constexpr int kTileColumns = kWarp * kPack;

// Column of this lane's element i within the tile. Aligned: 8 neighbours, one
// 16-byte load. Otherwise: lanes side by side, 8 loads.
template <bool kAligned>
__device__ int TileColumn(int i) {
  const int lane = threadIdx.x % kWarp;
  return kAligned ? lane * kPack + i : i * kWarp + lane;
}

// This lane's kPack elements of a row's tile, 0 beyond the row's end.
template <typename T, bool kAligned>
struct RowTile {
  Pack<T> pack;       // aligned
  T elements[kPack];  // otherwise

  __device__ void Load(const T* row, int first_column, int hidden_size) {
    if constexpr (kAligned) {
      const int column = first_column + TileColumn<true>(0);
      pack.bits = make_uint4(0, 0, 0, 0);
      if (column < hidden_size) pack = LoadWeights(row + column);
    } else {
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        const int column = first_column + TileColumn<false>(i);
        elements[i] = column < hidden_size ? row[column] : T(0.0f);
      }
    }
  }
  __device__ void Unpack(float (&out)[kPack]) const {
    if constexpr (kAligned) {
      pack.Unpack(out);
    } else {
#pragma unroll
      for (int i = 0; i < kPack; ++i) out[i] = ToFloat(elements[i]);
    }
  }
};

// Rows in flight at once in each warp.
template <int kTokens>
constexpr int kRows = kTokens <= 2 ? 8 : 4;

// Adds this warp's share of the listed neurons to sums: those at position
// `first` and every `step` after it.
template <typename T, int kTokens, bool kAligned>
__device__ void SumRows(const SparseDownParams& p, int first, int step,
                        int first_token, float (&sums)[kTokens][kPack]) {
  const int first_column = blockIdx.x * kTileColumns;
  const int tokens = min(kTokens, p.tokens - first_token);
  const int count = *p.list_count;
  for (int i0 = first; i0 < count; i0 += kRows<kTokens> * step) {
    RowTile<T, kAligned> rows[kRows<kTokens>];
#pragma unroll
    for (int r = 0; r < kRows<kTokens>; ++r) {
      const int i = i0 + r * step;
      if (i >= count) break;
      rows[r].Load(static_cast<const T*>(p.down_proj) +
                       static_cast<size_t>(p.list[i]) * p.hidden_size,
                   first_column, p.hidden_size);
    }
#pragma unroll
    for (int r = 0; r < kRows<kTokens>; ++r) {
      const int i = i0 + r * step;
      if (i >= count) break;
      float w[kPack];
      rows[r].Unpack(w);
      const float* gated =
          p.gated + static_cast<size_t>(i) * p.tokens + first_token;
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        if (t >= tokens) break;
        const float h = gated[t];
        // A row may hold anything for a token that it is inactive for.
        if (h == 0) continue;
#pragma unroll
        for (int k = 0; k < kPack; ++k) sums[t][k] = fmaf(h, w[k], sums[t][k]);
      }
    }
  }
}

// A block sums a tile of columns over its share of the listed neurons: its
// warps take neurons in turn, are added up in shared memory, and the block's
// sum goes to the output. blockIdx: x tile, y share, z block of tokens.
template <typename T, int kTokens, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    SparseDown(const SparseDownParams p) {
  static_assert(kThreads == kTileColumns, "one thread adds up one column");
  __shared__ float warp_sums[kWarps][kTileColumns];
  WaitForPredecessor();
  const int warp = threadIdx.x / kWarp;
  const int first_token = blockIdx.z * kTokens;
  float sums[kTokens][kPack] = {};
  SumRows<T, kTokens, kAligned>(p, blockIdx.y * kWarps + warp,
                                gridDim.y * kWarps, first_token, sums);
  const int column = blockIdx.x * kTileColumns + threadIdx.x;
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    if (first_token + t >= p.tokens) break;
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      warp_sums[warp][TileColumn<kAligned>(k)] = sums[t][k];
    }
    __syncthreads();
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += warp_sums[w][threadIdx.x];
    if (column < p.hidden_size) {
      atomicAdd(p.output +
                    static_cast<size_t>(first_token + t) * p.hidden_size +
                    column,
                sum);
    }
    __syncthreads();
  }
}

}  // namespace

cudaError_t LaunchSparseDown(const SparseDownParams& params,
                             cudaStream_t stream) {
  return DispatchElement(params.element, [&](auto element) {
    return DispatchTokenBlock(params.tokens, [&](auto token_block) {
      using T = decltype(element);
      constexpr int kTokens = decltype(token_block)::value;
      const int tiles = (params.hidden_size + kTileColumns - 1) / kTileColumns;
      const int shares = (2 * params.device.sm_count + tiles - 1) / tiles;
      const dim3 grid(tiles, shares, (params.tokens + kTokens - 1) / kTokens);
      const auto kernel = RowsAligned(params.hidden_size)
                              ? SparseDown<T, kTokens, true>
                              : SparseDown<T, kTokens, false>;
      return LaunchDependent(kernel, grid, kThreads, 0,
                             params.device.dependent_launch, stream, params);
    });
  });
}

}  // namespace sparse_ffn::cuda
