// A safetensors file, memory-mapped and bounds-checked.
#ifndef SPARSE_FFN_SERVER_CHECKPOINT_SAFETENSORS_H_
#define SPARSE_FFN_SERVER_CHECKPOINT_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/matrix.h"
#include "server/checkpoint/regular_file.h"
#include "server/checkpoint/safetensors_header.h"

namespace sparse_ffn {

// Move-only; views stay valid while it, or what it was moved to, lives. Const
// members may be called from any thread.
//
// Two ways to the data. The mapping needs no copy, but a process that touches
// pages of a file which somebody has cut short meanwhile, or which the disk
// cannot deliver, dies from SIGBUS. Read() copies through the descriptor and
// returns an error instead: a server uses that.
class SafetensorsFile {
 public:
  // Maps the file and checks its header; reads no tensor data. Only tensors
  // whose name passes `keep` can be asked for. Errors name the file, and the
  // tensor where there is one.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path,
                                              const TensorNameFilter& keep);

  SafetensorsFile(SafetensorsFile&& other) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&& other) noexcept;
  ~SafetensorsFile();

  const std::string& path() const { return file_.path(); }
  // Those kept, by name.
  const SafetensorsTensors& tensors() const { return tensors_; }

  // View of a kept tensor, into the mapping; may be unaligned. NOT_FOUND for a
  // name that is not in tensors(); INVALID_ARGUMENT unless it has the type F32,
  // F16 or BF16, two dimensions, and as many bytes as these demand.
  absl::StatusOr<ConstMatrix> Tensor(const std::string& name) const;

  // Whether `view` lies within the mapping.
  bool Holds(ConstMatrix view) const;

  // Copies rows [first_row, first_row + rows) of a view that Tensor() gave.
  // DATA_LOSS where the file has become too short or the disk fails.
  absl::Status ReadRows(ConstMatrix view, size_t first_row, size_t rows,
                        void* destination) const;

  // Asks the system to read the view's bytes ahead.
  void Prefetch(ConstMatrix view) const;

 private:
  SafetensorsFile(RegularFile file, const std::byte* mapping,
                  uint64_t data_begin, SafetensorsTensors tensors)
      : file_(std::move(file)),
        mapping_(mapping),
        mapping_bytes_(file_.size()),
        data_begin_(data_begin),
        tensors_(std::move(tensors)) {}

  RegularFile file_;
  const std::byte* mapping_ = nullptr;  // [mapping_bytes_], owned.
  uint64_t mapping_bytes_ = 0;
  uint64_t data_begin_ = 0;  // Of the data section in the file.
  SafetensorsTensors tensors_;
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_CHECKPOINT_SAFETENSORS_H_
