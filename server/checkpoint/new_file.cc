#include "server/checkpoint/new_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sparse_ffn {
namespace {

absl::Status Failed(const std::string& path, const char* what) {
  const int error = errno;
  return absl::ErrnoToStatus(error, absl::StrCat(path, ": cannot ", what));
}

// `path`, or the file that it leads to: a new name given to the link itself
// would take its place.
absl::StatusOr<std::string> BehindLinks(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_symlink(path, error)) return path;
  const std::filesystem::path target = std::filesystem::canonical(path, error);
  if (!error) return target.string();
  return absl::FailedPreconditionError(absl::StrCat(
      path, ": expected a file to write to, found a symbolic link to none"));
}

}  // namespace

absl::StatusOr<NewFile> NewFile::Create(const std::string& path) {
  if (path.empty()) {
    return absl::InvalidArgumentError(
        "expected the name of a file to write to, found an empty one");
  }
  struct stat found;
  const bool exists = stat(path.c_str(), &found) == 0;
  // Renaming over a device or FIFO would destroy it.
  if (exists && !S_ISREG(found.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, ": expected a regular file or nothing to write to, found ",
        S_ISDIR(found.st_mode) ? "a folder" : "something else"));
  }
  if (exists && access(path.c_str(), W_OK) != 0) {
    return Failed(path, "be written");
  }
  absl::StatusOr<std::string> target = BehindLinks(path);
  if (!target.ok()) return target.status();
  std::string temporary_path = absl::StrCat(*target, ".part-", getpid());
  const int descriptor =
      open(temporary_path.c_str(),
           O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (descriptor < 0) return Failed(path, "be written");
  NewFile file(*std::move(target), std::move(temporary_path), descriptor);
  if (exists && fchmod(descriptor, found.st_mode & 07777) != 0) {
    return Failed(path, "be written with its permissions");
  }
  return file;
}

NewFile::NewFile(std::string path, std::string temporary_path, int descriptor)
    : path_(std::move(path)),
      temporary_path_(std::move(temporary_path)),
      descriptor_(descriptor) {}

NewFile::NewFile(NewFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_path_(std::move(other.temporary_path_)),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

NewFile& NewFile::operator=(NewFile&& other) noexcept {
  if (this != &other) {
    Discard();
    path_ = std::move(other.path_);
    temporary_path_ = std::move(other.temporary_path_);
    descriptor_ = std::exchange(other.descriptor_, -1);
  }
  return *this;
}

NewFile::~NewFile() { Discard(); }

void NewFile::Discard() {
  if (descriptor_ < 0) return;
  close(std::exchange(descriptor_, -1));
  unlink(temporary_path_.c_str());
}

absl::Status NewFile::Append(const void* data, size_t bytes) {
  if (descriptor_ < 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path_, ": is already finished"));
  }
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written =
        write(descriptor_, next, std::min(bytes, size_t{1} << 30));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Failed(path_, "be written");
    next += written;
    bytes -= static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

absl::Status NewFile::Finish() {
  if (descriptor_ < 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path_, ": is already finished"));
  }
  // close() reports what a network file system could not store.
  if (close(std::exchange(descriptor_, -1)) != 0 ||
      rename(temporary_path_.c_str(), path_.c_str()) != 0) {
    absl::Status status = Failed(path_, "be written");
    unlink(temporary_path_.c_str());
    return status;
  }
  return absl::OkStatus();
}

absl::Status WriteFile(const std::string& path, absl::string_view content) {
  absl::StatusOr<NewFile> file = NewFile::Create(path);
  if (!file.ok()) return file.status();
  absl::Status status = file->Append(content.data(), content.size());
  return status.ok() ? file->Finish() : status;
}

}  // namespace sparse_ffn
