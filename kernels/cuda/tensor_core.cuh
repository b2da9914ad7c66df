// The tensor-core product that kernels are built from, and the loads
// of its operands from shared memory.
#ifndef SPARSE_FFN_KERNELS_CUDA_TENSOR_CORE_CUH_
#define SPARSE_FFN_KERNELS_CUDA_TENSOR_CORE_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace sparse_ffn::cuda {

// sums[16, 8] += a[16, 16] * b[16, 8], 2-byte floats in, float32 out, by one
// warp. The last argument tells their type. With group = lane / 4 and
// pair = lane % 4 a lane holds, two elements a word:
//   a: rows group, group + 8 at columns 2 pair, 2 pair + 1 (words 0 and 1),
//      the same rows at columns 2 pair + 8, 2 pair + 9 (words 2 and 3)
//   b: column group at rows 2 pair, 2 pair + 1 (word 0) and those + 8 (word 1)
//   sums: row group at columns 2 pair, 2 pair + 1; then row group + 8
// Columns of a may be in any order as long as rows of b are in the same.
__device__ inline void MultiplyAdd(float (&sums)[4], const uint32_t (&a)[4],
                                   const uint32_t (&b)[2],
                                   __nv_bfloat16 /*type*/) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ inline void MultiplyAdd(float (&sums)[4], const uint32_t (&a)[4],
                                   const uint32_t (&b)[2], __half /*type*/) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Tiles of 8 x 8 two-byte elements in shared memory. Lane 8 i + r gives the
// address of row r of tile i, 16 bytes; a lane receives of each tile, in word
// i, row lane / 4 at columns 2 (lane % 4) and the next.
template <int kTiles>
__device__ inline void LoadTiles(const void* row, uint32_t* words) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (kTiles == 4) {
    asm volatile(
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
        : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
        : "r"(at));
  } else {
    static_assert(kTiles == 2);
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(words[0]), "=r"(words[1])
                 : "r"(at));
  }
}

// The same of the transposed tiles: a lane receives column lane / 4 at rows
// 2 (lane % 4) and the next.
template <int kTiles>
__device__ inline void LoadTilesTransposed(const void* row, uint32_t* words) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (kTiles == 4) {
    asm volatile(
        "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, "
        "[%4];"
        : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
        : "r"(at));
  } else {
    static_assert(kTiles == 2);
    asm volatile(
        "ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
        : "=r"(words[0]), "=r"(words[1])
        : "r"(at));
  }
}

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_TENSOR_CORE_CUH_
