// Matrices in NumPy's .npy files.
#ifndef SPARSE_FFN_CLIENT_NPY_H_
#define SPARSE_FFN_CLIENT_NPY_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/matrix.h"

namespace sparse_ffn {

// Owns a row-major matrix.
struct NpyArray {
  std::vector<std::byte> data;
  size_t rows = 0;
  size_t cols = 0;
  DataType dtype = DataType::kFloat32;  // Never bfloat16: npy has none.

  // Valid while the array lives and is not resized.
  ConstMatrix view() const { return {data.data(), rows, cols, dtype}; }
};

// Reads little-endian float32 or float16 in C order, with one dimension (taken
// as one row) or two, format version 1 or 2. Errors name the file, what was
// expected and what was found; memory is taken only once the file is known to
// be as long as its header says.
absl::StatusOr<NpyArray> ReadNpy(const std::string& path);

// Hidden states for a model: as ReadNpy, and INVALID_ARGUMENT unless there is
// at least one row, of `hidden_size` columns.
absl::StatusOr<NpyArray> ReadHiddenStates(const std::string& path,
                                          size_t hidden_size);

// Writes float32 or float16; INVALID_ARGUMENT for bfloat16. A file that is
// already there stays until the new one is complete.
absl::Status WriteNpy(ConstMatrix matrix, const std::string& path);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_NPY_H_
