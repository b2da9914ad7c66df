// Dot products of a row of weights with the hidden states of a few tokens, by
// one warp on the tensor cores. What a token gets does not depend, in any bit,
// on which other tokens there are.
#ifndef SPARSE_FFN_KERNELS_CUDA_WARP_DOT_CUH_
#define SPARSE_FFN_KERNELS_CUDA_WARP_DOT_CUH_

#include <cstddef>

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace sparse_ffn::cuda {

// A row of weights and the same columns of the hidden states, all in shared
// memory and as many packs long.
struct DotOperands {
  const std::byte* row;
  const std::byte* hidden_states;  // [tokens, packs]
  const std::byte* zero_pack;
  int packs;
};

// Of a segment of a row, 32 packs, packs g, g + 8, g + 16 and g + 24 are rows g
// and g + 8 of one factor; the same packs of a token make column g of two
// factors, one for each of those rows. So the diagonals hold the products that
// belong together.
template <typename T, int kTokens>
struct WarpDot {
  // Of the columns of the diagonals that a lane holds.
  float even[kTokens] = {};
  float odd[kTokens] = {};

  // Nothing is added for packs beyond the row.
  __device__ void Add(const DotOperands& in, int segment) {
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
      const std::byte* x =
          in.hidden_states + (t * in.packs + x_at) * kPackBytes;
      uint32_t v[4];
      LoadTiles<4>(x_at < in.packs ? x : in.zero_pack, v);
      // Sums of their own: no product waits for another.
      float low[4] = {};
      float high[4] = {};
      MultiplyAdd(low, w, {v[0], v[1]}, T());
      MultiplyAdd(high, w, {v[2], v[3]}, T());
      even[t] += low[0] + high[2];
      odd[t] += low[1] + high[3];
    }
  }

  // The sum of all that were added for a token, in all lanes.
  __device__ float Sum(int token) const {
    const int lane = threadIdx.x % kWarp;
    const int group = lane / 4;
    const float diagonal = group % 2 == 0 ? even[token] : odd[token];
    return SumOverWarp(lane % 4 == group / 2 ? diagonal : 0);
  }
};

// dots[t] = row · hidden_states[t], in all lanes.
template <typename T, int kTokens>
__device__ void DotRow(const DotOperands& in, float (&dots)[kTokens]) {
  const int segments = (in.packs + kWarp - 1) / kWarp;
  WarpDot<T, kTokens> dot;
#pragma unroll(kTokens == 1 ? 4 : 2)
  for (int segment = 0; segment < segments; ++segment) dot.Add(in, segment);
#pragma unroll
  for (int t = 0; t < kTokens; ++t) dots[t] = dot.Sum(t);
}

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_WARP_DOT_CUH_
