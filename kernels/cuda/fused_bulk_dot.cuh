// Dot products of a row of weights with the hidden states of a few tokens, by
// one warp on the tensor cores. What a token gets does not depend, in any bit,
// on which other tokens there are.
#ifndef SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_DOT_CUH_
#define SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_DOT_CUH_

#include <cstddef>

#include "kernels/cuda/dot_order.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace sparse_ffn::cuda {

// Swaps words 1 and 2 of a pack of the hidden states: those of one product of
// dot_order.cuh then lie side by side, and so in the registers that a load
// fills. Twice, it is as before. In any other order a pack stays as it is.
template <DotOrder kOrder>
__device__ uint4 PairWords(const uint4& pack) {
  return kOrder == DotOrder::kInOrder
             ? make_uint4(pack.x, pack.z, pack.y, pack.w)
             : pack;
}

// A row of weights and the same columns of the hidden states, all in shared
// memory and as many packs long.
struct DotOperands {
  const std::byte* row;
  const std::byte* hidden_states;  // [tokens, packs], PairWords of each
  const std::byte* zero_pack;
  int packs;

  __device__ const std::byte* Hidden(int token, int pack) const {
    return hidden_states + (token * packs + pack) * kPackBytes;
  }
};

// Packs of a row that are taken together, a segment: in order a sweep.
template <DotOrder kOrder>
constexpr int kSegmentPacks =
    kOrder == DotOrder::kInOrder ? kDotSweepPacks : kWarp;

// Some packs of the row make the rows of one factor, and the same packs of a
// token the columns of the other: so the diagonal holds the products that
// belong together.
template <typename T, int kTokens, DotOrder kOrder>
struct WarpDot {
  // In the lanes that are OnDiagonal.
  float sums[kTokens] = {};

  // Nothing is added for packs beyond the row.
  __device__ void Add(const DotOperands& in, int segment) {
    if constexpr (kOrder == DotOrder::kInOrder) {
      float products[kTokens];
      MultiplyChunks(in, segment, products);
#pragma unroll
      for (int t = 0; t < kTokens; ++t) sums[t] += products[t];
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

  // The pack of a lane that LoadTiles is to give tiles 0, 2, 1, 3 of a segment.
  __device__ static int TilesSwapped(int lane) {
    return (lane & 7) | (lane & 8) << 1 | (lane & 16) >> 1;
  }

  // With DotOrder::kInOrder: the products of a segment's chunks for each token,
  // in the lanes that are OnDiagonal: of share lane / 4. Chunk g is row g of
  // one factor and column g of the other. The chunk of the last four lanes is
  // of the next segment, and not used.
  __device__ static void MultiplyChunks(const DotOperands& in, int segment,
                                        float (&products)[kTokens]) {
    const int at = segment * kDotSweepPacks + threadIdx.x % kWarp;
    const auto load = [&](const std::byte* pack) {
      return *reinterpret_cast<const uint4*>(at < in.packs ? pack
                                                           : in.zero_pack);
    };
    const uint4 row = load(in.row + at * kPackBytes);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      const float2 both =
          MultiplyChunk<T>(row, PairWords<kOrder>(load(in.Hidden(t, at))));
      products[t] = Diagonal(both.x, both.y);
    }
  }

  // The sum of all that were added for a token, in all lanes. In order as
  // AddShares: on the diagonal SumOverWarp meets rows 1, then 4, then 2 apart.
  __device__ float Sum(int token) const {
    return SumOverWarp(OnDiagonal() ? sums[token] : 0);
  }

  // Of the two columns that a lane holds, one is that of its row, lane / 4, in
  // every fourth lane: the first in even rows. In order the last of the eight
  // rows is none.
  __device__ static bool OnDiagonal() {
    const int row = threadIdx.x % kWarp / 4;
    return threadIdx.x % 4 == row / 2 &&
           (kOrder == DotOrder::kFast || row < kDotShares);
  }
  __device__ static float Diagonal(float even_row, float odd_row) {
    return threadIdx.x / 4 % 2 == 0 ? even_row : odd_row;
  }
};

// dots[t] = row · hidden_states[t], in all lanes. As many segments at once as
// were fastest; in order in whole groups, the last ones beyond the row, since
// single segments wait for each other.
template <typename T, DotOrder kOrder, int kTokens>
__device__ void DotRow(const DotOperands& in, float (&dots)[kTokens]) {
  const int segments =
      (in.packs + kSegmentPacks<kOrder> - 1) / kSegmentPacks<kOrder>;
  WarpDot<T, kTokens, kOrder> dot;
  if constexpr (kOrder == DotOrder::kInOrder) {
    constexpr int kGroup = 4;
#pragma unroll 1
    for (int first = 0; first < segments; first += kGroup) {
#pragma unroll
      for (int k = 0; k < kGroup; ++k) dot.Add(in, first + k);
    }
  } else {
#pragma unroll(kTokens == 1 ? 4 : 2)
    for (int segment = 0; segment < segments; ++segment) dot.Add(in, segment);
  }
#pragma unroll
  for (int t = 0; t < kTokens; ++t) dots[t] = dot.Sum(t);
}

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_DOT_CUH_
