#include <algorithm>

#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace sparse_ffn::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kTokenTile = 16;
// Neurons of one product.
constexpr int kDepth = 16;
// A lane loads kPack columns of its rows; they go to kPack products, so that
// column 8 group + i of the tile is column `group` of product i.
constexpr int kTileColumns = 8 * kPack;
constexpr int kSteps = 2;  // In flight at once.

// Of kDepth rows, those of this lane: 2 pair, 2 pair + 1 and both + 8.
template <typename T>
struct Rows {
  Pack<T> packs[4];

  __device__ void Load(const SparseDownParams& p, const int (&neurons)[4],
                       int column) {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      packs[r].bits = make_uint4(0, 0, 0, 0);
      if (neurons[r] >= 0 && column < p.hidden_size) {
        packs[r] = LoadWeights(static_cast<const T*>(p.down_proj) +
                               static_cast<size_t>(neurons[r]) * p.hidden_size +
                               column);
      }
    }
  }

  // Element i of two rows, side by side in a word.
  __device__ uint32_t Join(int i, int row) const {
    const uint4& a = packs[row].bits;
    const uint4& b = packs[row + 1].bits;
    const uint32_t words[2][4] = {{a.x, a.y, a.z, a.w}, {b.x, b.y, b.z, b.w}};
    return __byte_perm(words[0][i / 2], words[1][i / 2],
                       i % 2 == 0 ? 0x5410 : 0x7632);
  }
};

// This lane's neurons among kDepth of the list, -1 beyond its end.
__device__ void LoadNeurons(const SparseDownParams& p, int first, int count,
                            int (&neurons)[4]) {
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const int i = first + 2 * (threadIdx.x % 4) + (r % 2) + 8 * (r / 2);
    neurons[r] = i < count ? p.union_list[i] : -1;
  }
}

// Two neighbouring neurons of one token.
template <typename T>
__device__ uint32_t LoadGated(const void* gated, const SparseDownParams& p,
                              int token, int i) {
  return *reinterpret_cast<const uint32_t*>(
      static_cast<const T*>(gated) +
      static_cast<size_t>(token) * p.split_stride + i);
}

template <typename T, int kTiles>
__device__ void AddProducts(const SparseDownParams& p, const Rows<T>& rows,
                            int first, float (&sums)[kTiles][kPack][4]) {
  const int group = threadIdx.x % kWarp / 4;
  const int i = first + 2 * (threadIdx.x % 4);
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    const int token = tile * kTokenTile + group;
    uint32_t high[4];
    uint32_t low[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      high[k] =
          LoadGated<T>(p.gated_high, p, token + 8 * (k % 2), i + 8 * (k / 2));
      low[k] =
          LoadGated<T>(p.gated_low, p, token + 8 * (k % 2), i + 8 * (k / 2));
    }
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      const uint32_t weights[2] = {rows.Join(k, 0), rows.Join(k, 2)};
      MultiplyAdd(sums[tile][k], high, weights, T());
      MultiplyAdd(sums[tile][k], low, weights, T());
    }
  }
}

// A block sums a tile of columns over its share of the listed neurons, as
// SparseDown does; its warps take kDepth neurons in turn.
template <typename T, int kTiles>
__global__ void __launch_bounds__(kThreads, 2)
    SparseDownBatch(const SparseDownParams p) {
  __shared__ float warp_sums[kWarps][kTokenTile][kTileColumns];
  WaitForPredecessor();
  const int count = *p.union_count;
  const int warp = threadIdx.x / kWarp;
  const int group = threadIdx.x % kWarp / 4;
  const int pair = threadIdx.x % 4;
  const int first_column = blockIdx.x * kTileColumns;
  const int stride = gridDim.y * kWarps * kDepth;
  float sums[kTiles][kPack][4] = {};
  int i0 = (blockIdx.y * kWarps + warp) * kDepth;
  int neurons[kSteps][4];
#pragma unroll
  for (int s = 0; s < kSteps; ++s) {
    LoadNeurons(p, i0 + s * stride, count, neurons[s]);
  }
  for (; i0 < count; i0 += kSteps * stride) {
    Rows<T> rows[kSteps];
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      rows[s].Load(p, neurons[s], first_column + group * kPack);
      // Those of the next round, so that their rows need not wait for them.
      LoadNeurons(p, i0 + (kSteps + s) * stride, count, neurons[s]);
    }
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      if (i0 + s * stride >= count) break;
      AddProducts<T, kTiles>(p, rows[s], i0 + s * stride, sums);
    }
  }
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      const int column = 2 * pair * kPack + k;
      warp_sums[warp][group][column] = sums[tile][k][0];
      warp_sums[warp][group][column + kPack] = sums[tile][k][1];
      warp_sums[warp][group + 8][column] = sums[tile][k][2];
      warp_sums[warp][group + 8][column + kPack] = sums[tile][k][3];
    }
    __syncthreads();
    for (int at = threadIdx.x; at < kTokenTile * kTileColumns; at += kThreads) {
      const int token = tile * kTokenTile + at / kTileColumns;
      const int column = first_column + at % kTileColumns;
      if (token >= p.tokens || column >= p.hidden_size) continue;
      float sum = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        sum += warp_sums[w][at / kTileColumns][at % kTileColumns];
      }
      atomicAdd(p.output + static_cast<size_t>(token) * p.hidden_size + column,
                sum);
    }
    __syncthreads();
  }
}

}  // namespace

cudaError_t LaunchSparseDownBatch(const SparseDownParams& params,
                                  cudaStream_t stream) {
  const int tiles = (params.hidden_size + kTileColumns - 1) / kTileColumns;
  // Rounded down: all blocks run at once.
  const int shares = std::max(1, 2 * params.device.sm_count / tiles);
  return DispatchElement(params.element, [&](auto element) {
    using T = decltype(element);
    const auto kernel = params.tokens <= kTokenTile ? SparseDownBatch<T, 1>
                                                    : SparseDownBatch<T, 2>;
    return LaunchDependent(kernel, dim3(tiles, shares), kThreads, 0,
                           params.device.dependent_launch, stream, params);
  });
}

}  // namespace sparse_ffn::cuda
