#include "server/checkpoint/safetensors_writer.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace sparse_ffn {
namespace {

// Data begins at a multiple of this, so that vectors of any width are aligned.
constexpr size_t kDataAlignment = 64;

std::string HeaderFor(const std::vector<TensorSpec>& tensors) {
  nlohmann::ordered_json header;
  header["__metadata__"] = {{"format", "pt"}};
  uint64_t offset = 0;
  for (const TensorSpec& tensor : tensors) {
    const uint64_t end = offset + tensor.bytes();
    header[tensor.name] = {{"dtype", SafetensorsTypeName(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump(
      -1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  const size_t excess = (text.size() + sizeof(uint64_t)) % kDataAlignment;
  if (excess != 0) text.append(kDataAlignment - excess, ' ');
  return text;
}

std::string LittleEndian(uint64_t value) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) {
    bytes.push_back(static_cast<char>(value >> (8 * i) & 0xff));
  }
  return bytes;
}

}  // namespace

uint64_t TensorSpec::bytes() const {
  uint64_t result = DataTypeBytes(dtype);
  for (const size_t dimension : shape) result *= dimension;
  return result;
}

const char* SafetensorsTypeName(DataType dtype) {
  switch (dtype) {
    case DataType::kFloat32:
      return "F32";
    case DataType::kFloat16:
      return "F16";
    case DataType::kBFloat16:
      break;
  }
  return "BF16";
}

absl::StatusOr<SafetensorsWriter> SafetensorsWriter::Create(
    const std::string& path, const std::vector<TensorSpec>& tensors) {
  absl::StatusOr<NewFile> file = NewFile::Create(path);
  if (!file.ok()) return file.status();
  const std::string header = HeaderFor(tensors);
  const std::string start = LittleEndian(header.size()) + header;
  absl::Status status = file->Append(start.data(), start.size());
  if (!status.ok()) return status;
  uint64_t bytes = 0;
  for (const TensorSpec& tensor : tensors) bytes += tensor.bytes();
  return SafetensorsWriter(path, *std::move(file), bytes);
}

absl::Status SafetensorsWriter::Append(const void* data, size_t bytes) {
  if (bytes > bytes_left_) {
    return absl::FailedPreconditionError(
        absl::StrCat(path_, ": expected at most ", bytes_left_,
                     " more bytes of tensors, found ", bytes));
  }
  bytes_left_ -= bytes;
  return file_.Append(data, bytes);
}

absl::Status SafetensorsWriter::Finish() {
  if (bytes_left_ != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path_, ": expected ", bytes_left_,
                     " more bytes of tensors, found the "
                     "end"));
  }
  return file_.Finish();
}

}  // namespace sparse_ffn
