// A file for a result that is known only later.
#ifndef SPARSE_FFN_CLIENT_LOAD_RESULT_FILE_H_
#define SPARSE_FFN_CLIENT_LOAD_RESULT_FILE_H_

#include <fstream>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/checkpoint/new_file.h"

namespace sparse_ffn {

// Move-only. What `path` held stays until Write; destroyed before, nothing is
// left behind.
class ResultFile {
 public:
  // Opens it for writing; an error says why that cannot be. A device or FIFO,
  // such as /dev/stdout, may be named too.
  static absl::StatusOr<ResultFile> Open(const std::string& path);

  // Once.
  absl::Status Write(absl::string_view text);

 private:
  explicit ResultFile(std::string path) : path_(std::move(path)) {}

  std::string path_;
  std::optional<NewFile> file_;  // Or else:
  std::ofstream device_;
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_LOAD_RESULT_FILE_H_
