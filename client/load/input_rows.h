// The hidden states that a load sends: a few rows, used over and over.
#ifndef SPARSE_FFN_CLIENT_LOAD_INPUT_ROWS_H_
#define SPARSE_FFN_CLIENT_LOAD_INPUT_ROWS_H_

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"
#include "kernels/matrix.h"

namespace sparse_ffn {

class InputRows {
 public:
  // Copies `source` (at least one row), rounded to `dtype`, followed by its
  // own beginning, so that `tokens` rows from any row on are contiguous.
  InputRows(ConstMatrix source, DataType dtype, size_t tokens);

  // Bytes of one request: the rows number `first`, `first` + 1, ..., counted
  // round and round. Valid as long as this object.
  absl::string_view Request(size_t first) const;

 private:
  size_t rows_;
  size_t row_bytes_;
  size_t request_bytes_;
  std::string data_;
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_LOAD_INPUT_ROWS_H_
