// Views of matrices that somebody else owns, and the element types they hold.
#ifndef SPARSE_FFN_KERNELS_MATRIX_H_
#define SPARSE_FFN_KERNELS_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace sparse_ffn {

enum class DataType : uint8_t { kFloat32, kFloat16, kBFloat16 };

// Bytes of one element.
constexpr size_t DataTypeBytes(DataType dtype) {
  return dtype == DataType::kFloat32 ? 4 : 2;
}

// "float32", "float16" or "bfloat16".
constexpr const char* DataTypeName(DataType dtype) {
  switch (dtype) {
    case DataType::kFloat32:
      return "float32";
    case DataType::kFloat16:
      return "float16";
    case DataType::kBFloat16:
      break;
  }
  return "bfloat16";
}

// The type of such a name, or of its short form: fp32, fp16 or bf16. Nothing
// for any other name.
std::optional<DataType> ParseDataType(std::string_view name);

// Row-major [rows, cols] without padding. Passed by value; owns nothing. `data`
// may be unaligned where a function says so (a row in a file or a message).
struct ConstMatrix {
  const void* data = nullptr;
  size_t rows = 0;
  size_t cols = 0;
  DataType dtype = DataType::kFloat32;

  size_t row_bytes() const { return cols * DataTypeBytes(dtype); }
  size_t bytes() const { return rows * row_bytes(); }
  const void* row(size_t i) const {
    return static_cast<const std::byte*>(data) + i * row_bytes();
  }
};

struct Matrix {
  void* data = nullptr;
  size_t rows = 0;
  size_t cols = 0;
  DataType dtype = DataType::kFloat32;

  size_t row_bytes() const { return cols * DataTypeBytes(dtype); }
  size_t bytes() const { return rows * row_bytes(); }
  void* row(size_t i) const {
    return static_cast<std::byte*>(data) + i * row_bytes();
  }
  // A view that may be written is one that may be read.
  // NOLINTNEXTLINE(google-explicit-constructor)
  operator ConstMatrix() const { return {data, rows, cols, dtype}; }
};

// Copies `source` into `destination` (same rows and cols), rounding to nearest
// even where the destination's type is narrower. A value too large for float16
// becomes an infinity; NaN stays NaN. Either side may be unaligned. The two
// must not overlap unless they are the same memory and type.
void Convert(ConstMatrix source, Matrix destination);

// The least magnitude that becomes an infinity when it is rounded to `as`:
// 65520 for float16, about 3.396e38 for bfloat16, infinity for float32.
float LeastInfinite(DataType as);

// Index (row * cols + col) of the first element that is not finite once rounded
// to `as`: NaN, or LeastInfinite(as) and above in magnitude. -1 where there is
// none. `matrix` may be unaligned.
int64_t FindNonFinite(ConstMatrix matrix, DataType as);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_KERNELS_MATRIX_H_
