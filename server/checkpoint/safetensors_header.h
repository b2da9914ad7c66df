// The JSON header of a safetensors file, checked number by number.
#ifndef SPARSE_FFN_SERVER_CHECKPOINT_SAFETENSORS_HEADER_H_
#define SPARSE_FFN_SERVER_CHECKPOINT_SAFETENSORS_HEADER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/checkpoint/json_reader.h"

namespace sparse_ffn {

// The format's own limit on the header, in bytes.
inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;
// Metadata may hold long strings, but nothing is nested deeply.
inline constexpr JsonLimits kSafetensorsJsonLimits = {4, 1 << 20};

struct SafetensorsTensor {
  std::string dtype;            // As written, such as "BF16".
  std::vector<uint64_t> shape;  // At most 8 dimensions.
  uint64_t begin = 0;           // Byte offsets within the data section,
  uint64_t end = 0;             // begin <= end <= size of the section.
};

using SafetensorsTensors = std::map<std::string, SafetensorsTensor>;
using TensorNameFilter = std::function<bool(absl::string_view name)>;

// Parses `json`, whose data section has `data_bytes`. Keeps the tensors whose
// name passes `keep`; of the others only the byte ranges are looked at, and
// their memory stays below that of the text. INVALID_ARGUMENT, naming the
// tensor, for anything the format does not allow: names that come twice, ranges
// that overlap, leave holes or do not end with the file, numbers that are no
// unsigned 64-bit integers. Never throws.
absl::StatusOr<SafetensorsTensors> ParseSafetensorsHeader(
    absl::string_view json, uint64_t data_bytes, const TensorNameFilter& keep);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_CHECKPOINT_SAFETENSORS_HEADER_H_
