#include "server/checkpoint/regular_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sparse_ffn {
namespace {

const char* KindOfFile(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

absl::Status NotRegular(const std::string& path, mode_t mode) {
  return absl::FailedPreconditionError(absl::StrCat(
      path, ": expected a regular file, found ", KindOfFile(mode)));
}

}  // namespace

absl::StatusOr<RegularFile> RegularFile::Open(const std::string& path) {
  // O_NONBLOCK: opening a FIFO would wait for a writer.
  const int descriptor =
      open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  struct stat info;
  if (descriptor < 0) {
    const int error = errno;
    // A socket cannot be opened at all.
    if (error == ENXIO && stat(path.c_str(), &info) == 0) {
      return NotRegular(path, info.st_mode);
    }
    return absl::ErrnoToStatus(error, absl::StrCat(path, ": cannot be opened"));
  }
  RegularFile file(path, descriptor, 0);
  if (fstat(descriptor, &info) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": fstat"));
  }
  if (!S_ISREG(info.st_mode)) return NotRegular(path, info.st_mode);
  file.size_ = static_cast<uint64_t>(info.st_size);
  return file;
}

RegularFile::RegularFile(RegularFile&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      size_(std::exchange(other.size_, 0)) {}

RegularFile& RegularFile::operator=(RegularFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(size_, other.size_);
  return *this;
}

RegularFile::~RegularFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

absl::Status RegularFile::Read(uint64_t offset, size_t bytes,
                               void* destination) const {
  char* next = static_cast<char*>(destination);
  while (bytes > 0) {
    const ssize_t got =
        pread(descriptor_, next, std::min(bytes, size_t{1} << 30),
              static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const int error = errno;
      return absl::DataLossError(absl::StrCat(
          path_, ": reading at byte ", offset,
          " failed: ", std::string(absl::ErrnoToStatus(error, "").ToString())));
    }
    if (got == 0) {
      return absl::DataLossError(
          absl::StrCat(path_, ": expected ", bytes, " more bytes at byte ",
                       offset, ", found the end: the file has shrunk"));
    }
    next += got;
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<size_t>(got);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path,
                                          size_t max_bytes) {
  absl::StatusOr<RegularFile> file = RegularFile::Open(path);
  if (!file.ok()) return file.status();
  if (file->size() > max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": expected at most ",
                                                   max_bytes, " bytes, found ",
                                                   file->size()));
  }
  std::string content(file->size(), '\0');
  absl::Status status = file->Read(0, content.size(), content.data());
  if (!status.ok()) return status;
  return content;
}

}  // namespace sparse_ffn
