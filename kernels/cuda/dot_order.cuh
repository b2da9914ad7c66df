// The order in which kernels add up the product of a row of weights with hidden
// states where a token is to get the same bits from all of them: the one that
// suits fused_gated_up_rows.cu, the kernel for most batches.
//
// A row comes in chunks of kDotChunkPacks packs. A chunk gives two tensor-core
// products, of words 0 and 2 of each pack and of words 1 and 3, which are added
// to each other. Chunk c belongs to share c % kDotShares, and each share adds
// up its chunks one after the other. AddShares() adds up the shares.
#ifndef SPARSE_FFN_KERNELS_CUDA_DOT_ORDER_CUH_
#define SPARSE_FFN_KERNELS_CUDA_DOT_ORDER_CUH_

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace sparse_ffn::cuda {

// How the products of a row are added up.
enum class DotOrder {
  kFast,     // in any one order
  kInOrder,  // in that one
};

// As many as leave two token tiles 16 warps with a copy and a sum warp.
constexpr int kDotShares = 7;
constexpr int kDotChunkPacks = 4;
constexpr int kDotChunkBytes = kDotChunkPacks * kPackBytes;
// A sweep: a chunk of each share, side by side.
constexpr int kDotSweepPacks = kDotShares * kDotChunkPacks;
constexpr int kDotSweepBytes = kDotSweepPacks * kPackBytes;

// Of a row in shared memory: so long that chunks of two rows side by side fall
// on different banks.
__host__ __device__ constexpr int DotRowStride(int row_bytes) {
  constexpr int kBankBytes = 32 * 4;  // Of all banks.
  static_assert(2 * kDotChunkBytes == kBankBytes);
  return row_bytes +
         (kBankBytes + kDotChunkBytes - row_bytes % kBankBytes) % kBankBytes;
}

// Adds the two products of chunks of eight rows with eight columns, by one
// warp. A lane gives pack lane % 4 of the chunk of row lane / 4, and of that
// column.
template <typename T>
__device__ void AddChunkProducts(const uint4& row, const uint4& column,
                                 float (&upper)[4], float (&lower)[4]) {
  // Words 0 and 2 of the pack are a part of row lane / 4 of a factor, the
  // others of row lane / 4 + 8. Each of the two belongs to another product, of
  // which half counts.
  const uint32_t rows[4] = {row.x, row.y, row.z, row.w};
  MultiplyAdd(upper, rows, {column.x, column.z}, T());
  MultiplyAdd(lower, rows, {column.y, column.w}, T());
}
// What they make of row lane / 4 at columns 2 (lane % 4) and the next.
__device__ inline float2 ChunkSums(const float (&upper)[4],
                                   const float (&lower)[4]) {
  return make_float2(upper[0] + lower[2], upper[1] + lower[3]);
}

// Those of one chunk.
template <typename T>
__device__ float2 MultiplyChunk(const uint4& row, const uint4& column) {
  float upper[4] = {};
  float lower[4] = {};
  AddChunkProducts<T>(row, column, upper, lower);
  return ChunkSums(upper, lower);
}

// The same of sixteen rows: a lane gives packs of rows lane / 4 and lane / 4 +
// 8, and adds what it receives of both, as MultiplyAdd does.
template <typename T>
__device__ void AddChunk(const uint4& low_row, const uint4& high_row,
                         const uint4& column, float (&sums)[4]) {
  float upper[4] = {};
  float lower[4] = {};
  MultiplyAdd(upper, {low_row.x, high_row.x, low_row.z, high_row.z},
              {column.x, column.z}, T());
  MultiplyAdd(lower, {low_row.y, high_row.y, low_row.w, high_row.w},
              {column.y, column.w}, T());
#pragma unroll
  for (int i = 0; i < 4; ++i) sums[i] += upper[i] + lower[i];
}

// share(i): the sum of share i. BatchProducts::AddUp and WarpDot::Sum add up in
// this order without calling this: change all or none.
template <typename F>
__device__ float AddShares(F&& share) {
  const float left = (share(0) + share(1)) + (share(4) + share(5));
  return left + ((share(2) + share(3)) + share(6));
}

// Lanes that add up shares.
constexpr int kShareLanes = 8;
static_assert(kDotShares <= kShareLanes);

// The same of the shares of the first of them, 0 in the last one; in all of
// them.
__device__ inline float AddShareLanes(float share) {
  share += __shfl_xor_sync(kAllLanes, share, 1);
  share += __shfl_xor_sync(kAllLanes, share, 4);
  share += __shfl_xor_sync(kAllLanes, share, 2);
  return share;
}

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_DOT_ORDER_CUH_
