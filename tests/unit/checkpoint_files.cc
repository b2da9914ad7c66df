#include "tests/unit/checkpoint_files.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/sanitized.h"

namespace sparse_ffn {
namespace {

size_t AddressSpaceBytes() {
  std::ifstream file("/proc/self/statm");
  size_t pages = 0;
  file >> pages;
  return pages * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

TempFolder::TempFolder() {
  std::string pattern =
      (std::filesystem::temp_directory_path() / "sparse_ffn_XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) {
    throw std::runtime_error("no temporary folder");
  }
  path_ = pattern;
}

TempFolder::~TempFolder() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

void WriteBytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string ReadBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string SafetensorsBytes(const std::string& json, const std::string& data) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) {
    bytes.push_back(static_cast<char>(json.size() >> (8 * i) & 0xff));
  }
  return bytes + json + data;
}

std::string SafetensorsBytes(const std::vector<RawTensor>& tensors) {
  std::vector<std::string> entries;
  std::string data;
  for (const RawTensor& tensor : tensors) {
    entries.push_back(absl::StrCat(
        "\"", tensor.name, "\":{\"dtype\":\"", tensor.dtype, "\",\"shape\":[",
        absl::StrJoin(tensor.shape, ","), "],\"data_offsets\":[", data.size(),
        ",", data.size() + tensor.data.size(), "]}"));
    data += tensor.data;
  }
  return SafetensorsBytes(absl::StrCat("{", absl::StrJoin(entries, ","), "}"),
                          data);
}

float FfnElement(int layer, const std::string& projection, size_t row,
                 size_t col) {
  const size_t mixed = row * 31 + col * 17 + row * col % 13 +
                       static_cast<size_t>(layer) * 5 +
                       static_cast<size_t>(projection[0]);
  return static_cast<float>(mixed % 127) - 63;
}

RawTensor FfnTensor(int layer, const std::string& projection, size_t rows,
                    size_t cols) {
  std::vector<float> values;
  values.reserve(rows * cols);
  for (size_t row = 0; row < rows; ++row) {
    for (size_t col = 0; col < cols; ++col) {
      values.push_back(FfnElement(layer, projection, row, col));
    }
  }
  std::string data(values.size() * sizeof(float), '\0');
  std::memcpy(data.data(), values.data(), data.size());
  return {absl::StrCat("model.layers.", layer, ".mlp.", projection, ".weight"),
          "F32",
          {rows, cols},
          data};
}

std::vector<RawTensor> LayerOf(int layer, size_t hidden_size, size_t neurons) {
  return {FfnTensor(layer, "gate_proj", neurons, hidden_size),
          FfnTensor(layer, "up_proj", neurons, hidden_size),
          FfnTensor(layer, "down_proj", hidden_size, neurons)};
}

std::string ConfigJson(size_t hidden_size, size_t neurons, size_t layers,
                       const std::string& more) {
  return absl::StrCat("{\"hidden_size\": ", hidden_size,
                      ", \"intermediate_size\": ", neurons,
                      ", \"num_hidden_layers\": ", layers, ", ", more, "}");
}

bool SucceedsWithin(size_t bytes, const std::function<bool()>& work) {
  const pid_t child = fork();
  if (child == 0) {
    if (!kSanitized) {
      const rlim_t limit = AddressSpaceBytes() + bytes;
      const rlimit limits = {limit, limit};
      setrlimit(RLIMIT_AS, &limits);
    }
    _exit(work() ? 0 : 1);
  }
  int state = 0;
  waitpid(child, &state, 0);
  return WIFEXITED(state) && WEXITSTATUS(state) == 0;
}

}  // namespace sparse_ffn
