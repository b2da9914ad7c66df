// Opens files that somebody else put in a folder: only regular ones, and never
// in a way that blocks.
#ifndef SPARSE_FFN_SERVER_CHECKPOINT_REGULAR_FILE_H_
#define SPARSE_FFN_SERVER_CHECKPOINT_REGULAR_FILE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sparse_ffn {

// An open, readable, regular file. Move-only; closes its descriptor. Reading
// needs no lock.
class RegularFile {
 public:
  // Follows symbolic links, as caches of checkpoints are made of them.
  // NOT_FOUND where there is no file, FAILED_PRECONDITION for a directory,
  // FIFO, socket or device, which is not waited for.
  static absl::StatusOr<RegularFile> Open(const std::string& path);

  RegularFile(RegularFile&& other) noexcept;
  RegularFile& operator=(RegularFile&& other) noexcept;
  ~RegularFile();

  const std::string& path() const { return path_; }
  int descriptor() const { return descriptor_; }
  // In bytes, when it was opened.
  uint64_t size() const { return size_; }

  // Reads exactly `bytes` at `offset`. DATA_LOSS where the file has become too
  // short or the disk fails.
  absl::Status Read(uint64_t offset, size_t bytes, void* destination) const;

 private:
  RegularFile(std::string path, int descriptor, uint64_t size)
      : path_(std::move(path)), descriptor_(descriptor), size_(size) {}

  std::string path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

// The whole of a small file. INVALID_ARGUMENT where it exceeds `max_bytes`.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path,
                                          size_t max_bytes);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_CHECKPOINT_REGULAR_FILE_H_
