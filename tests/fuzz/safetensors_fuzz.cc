// Any bytes as a safetensors file: an error, or tensors that can be read whole.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "server/checkpoint/safetensors.h"
#include "tests/fuzz/fuzz_body.h"
#include "tests/fuzz/memory_file.h"

namespace sparse_ffn {
namespace {

std::string File(const std::string& json, size_t data_bytes) {
  const uint64_t length = json.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + json + std::string(data_bytes, '\x3f');
}

// Every byte of every tensor, both ways.
uint64_t SumOf(const SafetensorsFile& file) {
  uint64_t sum = 0;
  for (const auto& [name, tensor] : file.tensors()) {
    const absl::StatusOr<ConstMatrix> view = file.Tensor(name);
    if (!view.ok()) continue;
    if (!file.Holds(*view)) std::abort();
    std::string copy(view->bytes(), '\0');
    if (!file.ReadRows(*view, 0, view->rows, copy.data()).ok() ||
        std::memcmp(copy.data(), view->data, copy.size()) != 0) {
      std::abort();
    }
    for (const char byte : copy) sum += static_cast<unsigned char>(byte);
  }
  return sum;
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  return {
      File(R"({"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})", 24),
      File(R"({"__metadata__":{"format":"pt"},)"
           R"("model.layers.0.mlp.gate_proj.weight":{"dtype":"BF16",)"
           R"("shape":[4,2],"data_offsets":[0,16]},)"
           R"("b":{"dtype":"F16","shape":[1,5],"data_offsets":[16,26]},)"
           R"("c":{"dtype":"I64","shape":[],"data_offsets":[26,34]}}  )",
           34),
      File("{}", 0),
  };
}

std::string Repaired(std::string input) {
  // Data behind the header stay what they were: take its end to be the last
  // brace.
  const size_t brace = input.rfind('}');
  if (brace == std::string::npos || brace < sizeof(uint64_t)) return input;
  const uint64_t length = brace + 1 - sizeof(uint64_t);
  std::memcpy(input.data(), &length, sizeof(length));
  return input;
}

}  // namespace sparse_ffn

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static sparse_ffn::MemoryFile& file = *new sparse_ffn::MemoryFile;
  file.Fill(data, size);
  const auto opened = sparse_ffn::SafetensorsFile::Open(
      file.path(), [](absl::string_view name) { return name != "c"; });
  // Small input: whatever it says, what it holds is small.
  if (opened.ok() && sparse_ffn::SumOf(*opened) > 255 * size) std::abort();
  return 0;
}
