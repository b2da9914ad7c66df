// Dot products of a row of weights with the hidden states of a few tokens, by
// one warp on the tensor cores. What a token gets does not depend, in any bit,
// on which other tokens there are.
#ifndef SPARSE_FFN_KERNELS_CUDA_WARP_DOT_CUH_
#define SPARSE_FFN_KERNELS_CUDA_WARP_DOT_CUH_

#include <cstddef>

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace sparse_ffn::cuda {

// Packs that are taken together.
constexpr int kDotChunkPacks = 16;
__device__ inline int DotChunks(int packs) {
  return (packs + kDotChunkPacks - 1) / kDotChunkPacks;
}

// Two chunks.
__device__ inline int DotSegments(int packs) {
  return (packs + kWarp - 1) / kWarp;
}

// A row of weights and the same columns of the hidden states, all in shared
// memory and as many packs long.
struct DotOperands {
  const std::byte* row;
  const std::byte* hidden_states;  // [tokens, packs]
  const std::byte* zero_pack;
  int packs;
  int first_chunk;  // Where kAsBatch begins.

  __device__ const std::byte* Hidden(int token, int pack) const {
    return hidden_states + (token * packs + pack) * kPackBytes;
  }
};

// How the products of a row are added up.
enum class DotOrder {
  kFast,     // in any one order
  kAsBatch,  // as BatchProducts with eight column warps and kApart, to the bit
};

// Some packs of the row make the rows of one factor, and the same packs of a
// token the columns of the other: so the diagonal holds the products that
// belong together.
template <typename T, int kTokens, DotOrder kOrder>
struct WarpDot {
  // In the lanes that are OnDiagonal.
  float sums[kTokens] = {};

  // Nothing is added for packs beyond the row.
  __device__ void Add(const DotOperands& in, int segment) {
    if constexpr (kOrder == DotOrder::kAsBatch) {
      AddAsBatch(in, segment);
    } else {
      AddFast(in, segment);
    }
  }

  // Packs g, g + 8, g + 16 and g + 24 are rows g and g + 8 of one factor; those
  // of a token column g of two factors, one for each of those rows.
  __device__ void AddFast(const DotOperands& in, int segment) {
    const int lane = threadIdx.x % kWarp;
    const int w_at = segment * kWarp + lane;
    // Those that belong to a row of weights side by side.
    const int x_at = segment * kWarp + TilesSwapped(lane);
    uint32_t w[4];
    LoadTiles<4>(w_at < in.packs ? in.row + w_at * kPackBytes : in.zero_pack,
                 w);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      uint32_t v[4];
      LoadTiles<4>(x_at < in.packs ? in.Hidden(t, x_at) : in.zero_pack, v);
      // Sums of their own: no product waits for another.
      float low[4] = {};
      float high[4] = {};
      MultiplyAdd(low, w, {v[0], v[1]}, T());
      MultiplyAdd(high, w, {v[2], v[3]}, T());
      sums[t] += Diagonal(low[0], low[1]) + Diagonal(high[2], high[3]);
    }
  }

  // Chunks are added one after the other, from first_chunk around.
  __device__ void AddAsBatch(const DotOperands& in, int segment) {
    float2 products[kTokens];
    MultiplyChunks(in, segment, products);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      sums[t] += products[t].x;
      sums[t] += products[t].y;
    }
  }

  // What the two chunks of a segment give for each token, in the lanes that are
  // OnDiagonal. Packs g and g + 8 of the first chunk are row g of one factor
  // and column g of another, those of the second row g + 8, and column g of a
  // third.
  __device__ static void MultiplyChunks(const DotOperands& in, int segment,
                                        float2 (&products)[kTokens]) {
    const int lane = threadIdx.x % kWarp;
    uint32_t w[4];
    LoadTiles<4>(InTurn(in, segment, TilesSwapped(lane), in.row), w);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      uint32_t v[4];
      LoadTiles<4>(InTurn(in, segment, lane, in.Hidden(t, 0)), v);
      float first[4] = {};
      float second[4] = {};
      MultiplyAdd(first, w, {v[0], v[1]}, T());
      MultiplyAdd(second, w, {v[2], v[3]}, T());
      products[t] = make_float2(Diagonal(first[0], first[1]),
                                Diagonal(second[2], second[3]));
    }
  }

  // The pack of a lane that LoadTiles is to give tiles 0, 2, 1, 3 of a segment.
  __device__ static int TilesSwapped(int lane) {
    return (lane & 7) | (lane & 8) << 1 | (lane & 16) >> 1;
  }

  // Pack `i` of a segment, of a row, in the order of kAsBatch.
  __device__ static const std::byte* InTurn(const DotOperands& in, int segment,
                                            int i, const std::byte* row) {
    const int end = DotChunks(in.packs) * kDotChunkPacks;
    const int place = segment * kWarp + i;
    int at = place + in.first_chunk * kDotChunkPacks;
    if (at >= end) at -= end;
    return place < end && at < in.packs ? row + at * kPackBytes : in.zero_pack;
  }

  // The sum of all that were added for a token, in all lanes.
  __device__ float Sum(int token) const {
    return SumOverWarp(OnDiagonal() ? sums[token] : 0);
  }

  // Of the two columns that a lane holds, one is that of its row, lane / 4, in
  // every fourth lane: the first in even rows.
  __device__ static bool OnDiagonal() {
    return threadIdx.x % 4 == threadIdx.x % kWarp / 8;
  }
  __device__ static float Diagonal(float even_row, float odd_row) {
    return threadIdx.x / 4 % 2 == 0 ? even_row : odd_row;
  }
};

// dots[t] = row · hidden_states[t], in all lanes.
template <typename T, DotOrder kOrder, int kTokens>
__device__ void DotRow(const DotOperands& in, float (&dots)[kTokens]) {
  const int segments = DotSegments(in.packs);
  WarpDot<T, kTokens, kOrder> dot;
#pragma unroll(kTokens == 1 ? 4 : 2)
  for (int segment = 0; segment < segments; ++segment) dot.Add(in, segment);
#pragma unroll
  for (int t = 0; t < kTokens; ++t) dots[t] = dot.Sum(t);
}

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_WARP_DOT_CUH_
