#include "client/load/input_rows.h"

#include <cstring>

namespace sparse_ffn {

InputRows::InputRows(ConstMatrix source, DataType dtype, size_t tokens)
    : rows_(source.rows),
      row_bytes_(source.cols * DataTypeBytes(dtype)),
      request_bytes_(tokens * row_bytes_),
      data_((source.rows + tokens) * row_bytes_, '\0') {
  Convert(source, Matrix{data_.data(), source.rows, source.cols, dtype});
  // Forward, row by row: the copies of early rows serve as later sources.
  for (size_t row = rows_; row < rows_ + tokens; ++row) {
    std::memcpy(data_.data() + row * row_bytes_,
                data_.data() + (row - rows_) * row_bytes_, row_bytes_);
  }
}

absl::string_view InputRows::Request(size_t first) const {
  return {data_.data() + first % rows_ * row_bytes_, request_bytes_};
}

}  // namespace sparse_ffn
