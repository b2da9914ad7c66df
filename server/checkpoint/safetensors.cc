#include "server/checkpoint/safetensors.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/checkpoint/quoted.h"

namespace sparse_ffn {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kHeaderPieceBytes = 1 << 20;

absl::Status Invalid(const std::string& path, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

uint64_t LoadLittleEndian(const unsigned char (&bytes)[kLengthBytes]) {
  uint64_t value = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    value |= uint64_t{bytes[i]} << (8 * i);
  }
  return value;
}

// The JSON of the header. Grows with what has proved to be JSON-like, so that a
// file which is one big hole costs nothing.
absl::StatusOr<std::string> ReadHeader(const RegularFile& file) {
  if (file.size() < kLengthBytes) {
    return Invalid(file.path(),
                   absl::StrCat("expected a safetensors file of at least 8 "
                                "bytes, found ",
                                file.size()));
  }
  unsigned char length_bytes[kLengthBytes];
  absl::Status status = file.Read(0, kLengthBytes, length_bytes);
  if (!status.ok()) return status;
  const uint64_t length = LoadLittleEndian(length_bytes);
  const uint64_t limit =
      std::min(kMaxSafetensorsHeaderBytes, file.size() - kLengthBytes);
  if (length < 2 || length > limit) {
    return Invalid(file.path(), absl::StrCat("expected a header of 2 to ",
                                             limit, " bytes, found ", length));
  }
  std::string header;
  JsonLimitCheck check(kSafetensorsJsonLimits);
  while (header.size() < length) {
    const size_t have = header.size();
    const size_t bytes = std::min(kHeaderPieceBytes, length - have);
    header.resize(have + bytes);
    status = file.Read(kLengthBytes + have, bytes, header.data() + have);
    if (!status.ok()) return status;
    status = check.Next(absl::string_view(header.data() + have, bytes));
    if (!status.ok()) {
      return Invalid(file.path(),
                     absl::StrCat("header: ", std::string(status.message())));
    }
  }
  return header;
}

std::optional<DataType> ParseType(const std::string& dtype) {
  if (dtype == "F32") return DataType::kFloat32;
  if (dtype == "F16") return DataType::kFloat16;
  if (dtype == "BF16") return DataType::kBFloat16;
  return std::nullopt;
}

// `view`, from the begin of the page of its first byte.
std::pair<uintptr_t, uintptr_t> PagesOf(ConstMatrix view) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(view.data);
  return {begin / page * page, begin + view.bytes()};
}

}  // namespace

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(
    const std::string& path, const TensorNameFilter& keep) {
  absl::StatusOr<RegularFile> file = RegularFile::Open(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<std::string> header = ReadHeader(*file);
  if (!header.ok()) return header.status();
  const uint64_t data_begin = kLengthBytes + header->size();
  absl::StatusOr<SafetensorsTensors> tensors =
      ParseSafetensorsHeader(*header, file->size() - data_begin, keep);
  if (!tensors.ok()) {
    return Invalid(path, std::string(tensors.status().message()));
  }
  void* mapping =
      mmap(nullptr, file->size(), PROT_READ, MAP_SHARED, file->descriptor(), 0);
  if (mapping == MAP_FAILED) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": ", file->size(),
                                                   " bytes cannot be mapped"));
  }
  return SafetensorsFile(*std::move(file),
                         static_cast<const std::byte*>(mapping), data_begin,
                         *std::move(tensors));
}

SafetensorsFile::SafetensorsFile(SafetensorsFile&& other) noexcept
    : file_(std::move(other.file_)),
      mapping_(std::exchange(other.mapping_, nullptr)),
      mapping_bytes_(other.mapping_bytes_),
      data_begin_(other.data_begin_),
      tensors_(std::move(other.tensors_)) {}

SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&& other) noexcept {
  std::swap(file_, other.file_);
  std::swap(mapping_, other.mapping_);
  std::swap(mapping_bytes_, other.mapping_bytes_);
  std::swap(data_begin_, other.data_begin_);
  std::swap(tensors_, other.tensors_);
  return *this;
}

SafetensorsFile::~SafetensorsFile() {
  if (mapping_ != nullptr) {
    munmap(const_cast<std::byte*>(mapping_), mapping_bytes_);
  }
}

absl::StatusOr<ConstMatrix> SafetensorsFile::Tensor(
    const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    return absl::NotFoundError(
        absl::StrCat(path(), ": has no tensor ", Quoted(name)));
  }
  const SafetensorsTensor& tensor = found->second;
  const std::string where =
      absl::StrCat("tensor ", Quoted(name), ": expected ");
  const std::optional<DataType> dtype = ParseType(tensor.dtype);
  if (!dtype) {
    return Invalid(path(), absl::StrCat(where, "dtype F32, F16 or BF16, found ",
                                        Quoted(tensor.dtype)));
  }
  const std::string shape =
      absl::StrCat("[", absl::StrJoin(tensor.shape, ", "), "]");
  if (tensor.shape.size() != 2) {
    return Invalid(path(),
                   absl::StrCat(where, "2 dimensions, found shape ", shape));
  }
  uint64_t bytes = DataTypeBytes(*dtype);
  const bool overflows =
      __builtin_mul_overflow(bytes, tensor.shape[0], &bytes) ||
      __builtin_mul_overflow(bytes, tensor.shape[1], &bytes);
  if (overflows || bytes != tensor.end - tensor.begin) {
    return Invalid(path(),
                   absl::StrCat(where, "the ",
                                overflows ? std::string("2^64 or more")
                                          : absl::StrCat(bytes),
                                " bytes of shape ", shape, " ", tensor.dtype,
                                ", found ", tensor.end - tensor.begin));
  }
  return ConstMatrix{mapping_ + data_begin_ + tensor.begin, tensor.shape[0],
                     tensor.shape[1], *dtype};
}

bool SafetensorsFile::Holds(ConstMatrix view) const {
  const auto begin = reinterpret_cast<uintptr_t>(view.data);
  const auto mapping = reinterpret_cast<uintptr_t>(mapping_);
  return begin >= mapping && begin - mapping <= mapping_bytes_ &&
         view.bytes() <= mapping_bytes_ - (begin - mapping);
}

absl::Status SafetensorsFile::ReadRows(ConstMatrix view, size_t first_row,
                                       size_t rows, void* destination) const {
  const auto* begin = static_cast<const std::byte*>(view.row(first_row));
  return file_.Read(static_cast<uint64_t>(begin - mapping_),
                    rows * view.row_bytes(), destination);
}

void SafetensorsFile::Prefetch(ConstMatrix view) const {
  const auto [begin, end] = PagesOf(view);
  // Advice only: nothing is lost where it is not taken.
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_WILLNEED);
}

}  // namespace sparse_ffn
