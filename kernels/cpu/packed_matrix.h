// A weight matrix as the kernels of the CPU backend read it.
#ifndef SPARSE_FFN_KERNELS_CPU_PACKED_MATRIX_H_
#define SPARSE_FFN_KERNELS_CPU_PACKED_MATRIX_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/aligned_memory.h"
#include "kernels/matrix.h"

namespace sparse_ffn::cpu {

// Columns of a row with its padding: a whole number of 64-byte vectors for
// every element type.
constexpr size_t PaddedCols(size_t cols) { return AlignUp(cols, 32); }

// Bytes from one row to the next. Never a multiple of a page, which would put
// the same column of all rows into the same few lines of the cache.
constexpr size_t StrideBytes(size_t cols, DataType dtype) {
  const size_t bytes = PaddedCols(cols) * DataTypeBytes(dtype);
  return bytes % 1024 == 0 ? bytes + kAlignmentBytes : bytes;
}

// View of rows of PaddedCols() elements, zero beyond the matrix's own, each
// 64-byte aligned.
struct PackedMatrix {
  const uint8_t* data = nullptr;
  size_t stride_bytes = 0;
  size_t padded_cols = 0;
  DataType dtype = DataType::kFloat32;
  bool finite = false;  // No element is infinite or NaN.

  const uint8_t* row(size_t i) const { return data + i * stride_bytes; }
};

}  // namespace sparse_ffn::cpu

#endif  // SPARSE_FFN_KERNELS_CPU_PACKED_MATRIX_H_
