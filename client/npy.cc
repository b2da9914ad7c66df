#include "client/npy.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "server/checkpoint/new_file.h"
#include "server/checkpoint/quoted.h"
#include "server/checkpoint/regular_file.h"

namespace sparse_ffn {
namespace {

constexpr char kMagic[] = "\x93NUMPY";
constexpr size_t kMagicBytes = 6;
constexpr size_t kMaxHeaderBytes = 1 << 16;
constexpr size_t kAlignment = 64;

struct NpyHeader {
  DataType dtype = DataType::kFloat32;
  uint64_t rows = 0;
  uint64_t cols = 0;
};

absl::Status Expected(const std::string& expected, absl::string_view found) {
  return absl::InvalidArgumentError(
      absl::StrCat("expected ", expected, ", found ", found));
}

// The value of `key` in the text of a Python dictionary: up to the next comma,
// or the whole of a tuple.
absl::StatusOr<absl::string_view> ValueOf(absl::string_view dictionary,
                                          absl::string_view key) {
  const std::string quoted_key = absl::StrCat("'", key, "'");
  const size_t at = dictionary.find(quoted_key);
  if (at == absl::string_view::npos ||
      dictionary.find(quoted_key, at + 1) != absl::string_view::npos) {
    return Expected(absl::StrCat(quoted_key, " once"), Quoted(dictionary));
  }
  absl::string_view rest = absl::StripLeadingAsciiWhitespace(
      dictionary.substr(at + quoted_key.size()));
  if (!absl::ConsumePrefix(&rest, ":")) {
    return Expected(absl::StrCat("a value for ", quoted_key),
                    Quoted(dictionary));
  }
  rest = absl::StripLeadingAsciiWhitespace(rest);
  const bool is_tuple = absl::StartsWith(rest, "(");
  const size_t end = rest.find_first_of(is_tuple ? ")" : ",}");
  if (end == absl::string_view::npos) {
    return Expected(absl::StrCat("a value for ", quoted_key),
                    Quoted(dictionary));
  }
  return absl::StripAsciiWhitespace(rest.substr(0, end + (is_tuple ? 1 : 0)));
}

absl::Status ParseShape(absl::string_view text, NpyHeader& header) {
  const std::string found = Quoted(text);
  const auto wrong = [&found] {
    return Expected("a shape of one or two numbers", found);
  };
  if (!absl::ConsumePrefix(&text, "(") || !absl::ConsumeSuffix(&text, ")")) {
    return wrong();
  }
  uint64_t sizes[2] = {1, 0};
  size_t count = 0;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    part = absl::StripAsciiWhitespace(part);
    if (part.empty()) continue;  // After the comma of a tuple of one.
    if (part.find_first_not_of("0123456789") != absl::string_view::npos ||
        count == 2) {
      return wrong();
    }
    if (count == 1) sizes[0] = sizes[1];
    if (!absl::SimpleAtoi(part, &sizes[1])) return wrong();
    ++count;
  }
  if (count == 0) return wrong();
  header.rows = sizes[0];
  header.cols = sizes[1];
  return absl::OkStatus();
}

absl::StatusOr<NpyHeader> ParseHeader(absl::string_view text) {
  NpyHeader header;
  absl::StatusOr<absl::string_view> descr = ValueOf(text, "descr");
  if (!descr.ok()) return descr.status();
  if (*descr == "'<f2'") {
    header.dtype = DataType::kFloat16;
  } else if (*descr != "'<f4'") {
    return Expected("little-endian float32 ('<f4') or float16 ('<f2')",
                    Quoted(*descr));
  }
  absl::StatusOr<absl::string_view> order = ValueOf(text, "fortran_order");
  if (!order.ok()) return order.status();
  if (*order != "False") {
    return Expected("C order (fortran_order False)", Quoted(*order));
  }
  absl::StatusOr<absl::string_view> shape = ValueOf(text, "shape");
  if (!shape.ok()) return shape.status();
  absl::Status status = ParseShape(*shape, header);
  if (!status.ok()) return status;
  return header;
}

// Reads the header; `data_begin` becomes the offset of what follows it.
absl::StatusOr<NpyHeader> ReadHeader(const RegularFile& file,
                                     uint64_t& data_begin) {
  unsigned char start[12] = {};
  const size_t start_bytes = std::min<uint64_t>(sizeof(start), file.size());
  absl::Status status = file.Read(0, start_bytes, start);
  if (!status.ok()) return status;
  const unsigned version = start[kMagicBytes];
  if (start_bytes < sizeof(start) ||
      std::memcmp(start, kMagic, kMagicBytes) != 0 ||
      (version != 1 && version != 2)) {
    return Expected("an .npy file of version 1 or 2", "something else");
  }
  data_begin = version == 1 ? 10 : 12;
  uint64_t header_bytes = start[8] | start[9] << 8;
  if (version == 2) {
    header_bytes |= uint64_t{start[10]} << 16 | uint64_t{start[11]} << 24;
  }
  if (header_bytes > kMaxHeaderBytes ||
      header_bytes > file.size() - data_begin) {
    return Expected(absl::StrCat("a header of at most ",
                                 std::min<uint64_t>(kMaxHeaderBytes,
                                                    file.size() - data_begin),
                                 " bytes"),
                    absl::StrCat(header_bytes));
  }
  std::string text(header_bytes, '\0');
  status = file.Read(data_begin, text.size(), text.data());
  if (!status.ok()) return status;
  data_begin += header_bytes;
  return ParseHeader(text);
}

absl::StatusOr<NpyArray> ReadArray(const RegularFile& file) {
  uint64_t data_begin = 0;
  absl::StatusOr<NpyHeader> header = ReadHeader(file, data_begin);
  if (!header.ok()) return header.status();
  const uint64_t data_bytes = file.size() - data_begin;
  uint64_t bytes = DataTypeBytes(header->dtype);
  const bool overflows = __builtin_mul_overflow(bytes, header->rows, &bytes) ||
                         __builtin_mul_overflow(bytes, header->cols, &bytes);
  if (overflows || bytes != data_bytes) {
    return Expected(
        absl::StrCat("the bytes of shape (", header->rows, ", ", header->cols,
                     ") ", DataTypeName(header->dtype)),
        absl::StrCat(data_bytes));
  }
  NpyArray array;
  array.rows = header->rows;
  array.cols = header->cols;
  array.dtype = header->dtype;
  array.data.resize(bytes);
  absl::Status status = file.Read(data_begin, bytes, array.data.data());
  if (!status.ok()) return status;
  return array;
}

}  // namespace

absl::StatusOr<NpyArray> ReadNpy(const std::string& path) {
  absl::StatusOr<RegularFile> file = RegularFile::Open(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<NpyArray> array = ReadArray(*file);
  if (array.ok() || !absl::IsInvalidArgument(array.status())) return array;
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": ", std::string(array.status().message())));
}

absl::StatusOr<NpyArray> ReadHiddenStates(const std::string& path,
                                          size_t hidden_size) {
  absl::StatusOr<NpyArray> array = ReadNpy(path);
  if (!array.ok() || (array->rows > 0 && array->cols == hidden_size)) {
    return array;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      path, ": expected at least one row of hidden size ", hidden_size,
      ", found [", array->rows, ", ", array->cols, "]"));
}

absl::Status WriteNpy(ConstMatrix matrix, const std::string& path) {
  if (matrix.dtype == DataType::kBFloat16) {
    return absl::InvalidArgumentError(absl::StrCat(
        path,
        ": expected float32 or float16, found bfloat16, which .npy "
        "files cannot hold"));
  }
  std::string header = absl::StrCat(
      "{'descr': '", matrix.dtype == DataType::kFloat32 ? "<f4" : "<f2",
      "', 'fortran_order': False, 'shape': (", matrix.rows, ", ", matrix.cols,
      "), }");
  const size_t prefix_bytes = kMagicBytes + 4;
  while ((prefix_bytes + header.size() + 1) % kAlignment != 0) header += ' ';
  header += '\n';
  std::string start(kMagic, kMagicBytes);
  start += '\x01';
  start += '\x00';
  start += static_cast<char>(header.size() & 0xff);
  start += static_cast<char>(header.size() >> 8);
  start += header;

  absl::StatusOr<NewFile> file = NewFile::Create(path);
  if (!file.ok()) return file.status();
  absl::Status status = file->Append(start.data(), start.size());
  if (status.ok()) status = file->Append(matrix.data, matrix.bytes());
  return status.ok() ? file->Finish() : status;
}

}  // namespace sparse_ffn
