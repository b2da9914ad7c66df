#include "client/load/result_file.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace sparse_ffn {

absl::StatusOr<ResultFile> ResultFile::Open(const std::string& path) {
  ResultFile result(path);
  std::error_code error;
  const std::filesystem::file_status found =
      std::filesystem::status(path, error);
  if (std::filesystem::is_character_file(found) ||
      std::filesystem::is_fifo(found)) {
    result.device_.open(path);
    if (result.device_) return result;
    return absl::UnavailableError(absl::StrCat(path, ": cannot be written"));
  }
  absl::StatusOr<NewFile> file = NewFile::Create(path);
  if (!file.ok()) return file.status();
  result.file_.emplace(*std::move(file));
  return result;
}

absl::Status ResultFile::Write(absl::string_view text) {
  if (file_.has_value()) {
    absl::Status status = file_->Append(text.data(), text.size());
    return status.ok() ? file_->Finish() : status;
  }
  device_ << text;
  device_.close();
  if (device_) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(path_, ": cannot be written"));
}

}  // namespace sparse_ffn
