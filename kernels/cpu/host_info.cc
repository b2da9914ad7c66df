#include "kernels/cpu/host_info.h"

#include <fstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "hwy/targets.h"
#include "kernels/cpu/dot_kernels.h"

namespace sparse_ffn::cpu {
namespace {

// What follows "key" and a colon in a file of such lines; none if absent.
std::optional<std::string> FindEntry(const char* path, const std::string& key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos || line.rfind(key, 0) != 0) continue;
    const size_t value = line.find_first_not_of(" \t", colon + 1);
    return value == std::string::npos ? "" : line.substr(value);
  }
  return std::nullopt;
}

// Of the targets that this build knows, the best that the processor has.
int64_t BestTarget() {
  const int64_t usable = hwy::SupportedTargets() & HWY_TARGETS;
  return usable & -usable;
}

}  // namespace

std::string ProcessorName() {
  const std::string model =
      FindEntry("/proc/cpuinfo", "model name").value_or("CPU");
  const bool multiplies_bfloat16 =
      StatesType(DataType::kBFloat16) == DataType::kBFloat16;
  return absl::StrCat(model, " (", hwy::TargetName(BestTarget()),
                      multiplies_bfloat16 ? " with AVX512_BF16" : "", ")");
}

std::optional<size_t> AvailableMemoryBytes() {
  const std::optional<std::string> entry =
      FindEntry("/proc/meminfo", "MemAvailable");
  if (!entry.has_value()) return std::nullopt;
  uint64_t kibibytes = 0;
  const std::string number = entry->substr(0, entry->find(' '));
  if (!absl::SimpleAtoi(number, &kibibytes)) return std::nullopt;
  return kibibytes * 1024;
}

}  // namespace sparse_ffn::cpu
