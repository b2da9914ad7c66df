// Writes a safetensors file front to back, without holding its tensors.
#ifndef SPARSE_FFN_SERVER_CHECKPOINT_SAFETENSORS_WRITER_H_
#define SPARSE_FFN_SERVER_CHECKPOINT_SAFETENSORS_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/matrix.h"
#include "server/checkpoint/new_file.h"

namespace sparse_ffn {

struct TensorSpec {
  std::string name;
  DataType dtype = DataType::kFloat32;
  std::vector<size_t> shape;

  uint64_t bytes() const;
};

// Move-only. The file has a temporary name until Finish; a writer that is
// destroyed before leaves nothing behind.
class SafetensorsWriter {
 public:
  // Writes the header for `tensors`, whose data then comes in this order.
  static absl::StatusOr<SafetensorsWriter> Create(
      const std::string& path, const std::vector<TensorSpec>& tensors);

  // Appends bytes of tensor data; a tensor may come in pieces.
  // FAILED_PRECONDITION for more bytes than the header announced.
  absl::Status Append(const void* data, size_t bytes);

  // Gives the file its name. FAILED_PRECONDITION unless exactly the bytes of
  // all tensors were appended. The writer is then of no more use.
  absl::Status Finish();

 private:
  SafetensorsWriter(std::string path, NewFile file, uint64_t bytes_left)
      : path_(std::move(path)),
        file_(std::move(file)),
        bytes_left_(bytes_left) {}

  std::string path_;
  NewFile file_;
  uint64_t bytes_left_ = 0;
};

// The type's name in a safetensors header: "F32", "F16" or "BF16".
const char* SafetensorsTypeName(DataType dtype);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_CHECKPOINT_SAFETENSORS_WRITER_H_
