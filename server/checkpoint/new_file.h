// A file that appears under its name only when it is complete.
#ifndef SPARSE_FFN_SERVER_CHECKPOINT_NEW_FILE_H_
#define SPARSE_FFN_SERVER_CHECKPOINT_NEW_FILE_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sparse_ffn {

// Move-only. Has a temporary name beside `path` until Finish; destroyed before,
// it leaves nothing behind, and what `path` held stays. Takes over the
// permissions of that, and where `path` is a symbolic link, it stays one.
class NewFile {
 public:
  // INVALID_ARGUMENT where `path` is empty, FAILED_PRECONDITION where it is
  // there but no regular file, or a link to nothing; else what keeps it from
  // being written.
  static absl::StatusOr<NewFile> Create(const std::string& path);

  NewFile(NewFile&& other) noexcept;
  NewFile& operator=(NewFile&& other) noexcept;
  ~NewFile();

  absl::Status Append(const void* data, size_t bytes);

  // Closes the file and gives it its name. Of no more use afterwards.
  absl::Status Finish();

 private:
  NewFile(std::string path, std::string temporary_path, int descriptor);
  void Discard();

  std::string path_;
  std::string temporary_path_;
  int descriptor_ = -1;  // -1 once finished or moved from.
};

// Writes all of `content` to `path`, or leaves what was there.
absl::Status WriteFile(const std::string& path, absl::string_view content);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_CHECKPOINT_NEW_FILE_H_
