#include "server/transpose.h"

#include <algorithm>
#include <cstdint>

namespace sparse_ffn {
namespace {

// A tile of both sides stays in the first-level cache.
constexpr size_t kTile = 32;

template <typename Element>
void TransposeElements(ConstMatrix rows, Matrix destination, size_t first_col) {
  const auto* source = static_cast<const Element*>(rows.data);
  auto* target = static_cast<Element*>(destination.data) + first_col;
  for (size_t row = 0; row < rows.rows; row += kTile) {
    const size_t row_end = std::min(row + kTile, rows.rows);
    for (size_t col = 0; col < rows.cols; col += kTile) {
      const size_t col_end = std::min(col + kTile, rows.cols);
      for (size_t c = col; c < col_end; ++c) {
        Element* line = target + c * destination.cols;
        for (size_t r = row; r < row_end; ++r) {
          line[r] = source[r * rows.cols + c];
        }
      }
    }
  }
}

}  // namespace

void Transpose(ConstMatrix rows, Matrix destination, size_t first_col) {
  if (DataTypeBytes(rows.dtype) == 2) {
    TransposeElements<uint16_t>(rows, destination, first_col);
  } else {
    TransposeElements<uint32_t>(rows, destination, first_col);
  }
}

}  // namespace sparse_ffn
