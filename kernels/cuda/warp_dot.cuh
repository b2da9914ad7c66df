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
  kAsBatch,  // as BatchProducts with eight column warps does, to the bit
};

// Some packs of the row make the rows of one factor, and the same packs of a
// token the columns of the other: so the diagonal holds the products that
// belong together.
template <typename T, int kTokens, DotOrder kOrder>
struct WarpDot {
  // Of the columns of the diagonal that a lane holds, in the first two places.
  float sums[kTokens][4] = {};

  // A segment: 32 packs, two chunks. Nothing is added for packs beyond the row.
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
    // Tiles 0, 2, 1, 3: those that belong to a row of weights side by side.
    const int x_lane = (lane & 7) | (lane & 8) << 1 | (lane & 16) >> 1;
    const int w_at = segment * kWarp + lane;
    const int x_at = segment * kWarp + x_lane;
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
      sums[t][0] += low[0] + high[2];
      sums[t][1] += low[1] + high[3];
    }
  }

  // Packs g and g + 8 of a chunk are row g, and row g + 8 once more, which goes
  // unused; chunks are added one after the other, from first_chunk around.
  __device__ void AddAsBatch(const DotOperands& in, int segment) {
    const int end = DotChunks(in.packs) * kDotChunkPacks;
    const int place = segment * kWarp + static_cast<int>(threadIdx.x) % kWarp;
    int at = place + in.first_chunk * kDotChunkPacks;
    if (at >= end) at -= end;
    const bool exists = place < end && at < in.packs;
    const bool has_second = 2 * segment + 1 < DotChunks(in.packs);
    uint32_t w[4];
    LoadTiles<4>(exists ? in.row + at * kPackBytes : in.zero_pack, w);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      uint32_t v[4];
      LoadTiles<4>(exists ? in.Hidden(t, at) : in.zero_pack, v);
      MultiplyAdd(sums[t], {w[0], w[0], w[1], w[1]}, {v[0], v[1]}, T());
      if (has_second) {
        MultiplyAdd(sums[t], {w[2], w[2], w[3], w[3]}, {v[2], v[3]}, T());
      }
    }
  }

  // The sum of all that were added for a token, in all lanes.
  __device__ float Sum(int token) const {
    const int lane = threadIdx.x % kWarp;
    const int group = lane / 4;
    const float diagonal = group % 2 == 0 ? sums[token][0] : sums[token][1];
    return SumOverWarp(lane % 4 == group / 2 ? diagonal : 0);
  }
};

// dots[t] = row · hidden_states[t], in all lanes.
template <typename T, DotOrder kOrder, int kTokens>
__device__ void DotRow(const DotOperands& in, float (&dots)[kTokens]) {
  const int segments = (in.packs + kWarp - 1) / kWarp;
  WarpDot<T, kTokens, kOrder> dot;
#pragma unroll(kTokens == 1 ? 4 : 2)
  for (int segment = 0; segment < segments; ++segment) dot.Add(in, segment);
#pragma unroll
  for (int t = 0; t < kTokens; ++t) dots[t] = dot.Sum(t);
}

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_WARP_DOT_CUH_
