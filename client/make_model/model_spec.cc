#include "client/make_model/model_spec.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/checkpoint/model_config.h"

namespace sparse_ffn {
namespace {

struct Preset {
  const char* name;
  size_t hidden_size;
  size_t intermediate_size;
  size_t num_layers;
  double mean_sparsity;
  const char* activation;
  double threshold;
  DataType dtype;
};

constexpr Preset kPresets[] = {
    {"tiny", 128, 352, 4, 0.89, "fatrelu", 0.01, DataType::kBFloat16},
    {"minicpm-s-1b", 1536, 3840, 52, 0.8789, "fatrelu", 0.03,
     DataType::kBFloat16},
    {"prosparse-7b", 4096, 11008, 32, 0.8932, "fatrelu", 0.01,
     DataType::kBFloat16},
    {"prosparse-13b", 5120, 13824, 40, 0.8880, "fatrelu", 0.01,
     DataType::kBFloat16},
    {"relullama-7b", 4096, 11008, 32, 0.6698, "relu", 0, DataType::kFloat32},
};

absl::Status OutOfRange(const char* entry, const std::string& expected,
                        const std::string& found) {
  return absl::InvalidArgumentError(
      absl::StrCat(entry, ": expected ", expected, ", found ", found));
}

absl::Status CheckCount(const char* entry, size_t limit, size_t value) {
  if (value >= 1 && value <= limit) return absl::OkStatus();
  return OutOfRange(entry, absl::StrCat("a number from 1 to ", limit),
                    absl::StrCat(value));
}

}  // namespace

std::vector<std::string> PresetNames() {
  std::vector<std::string> names;
  for (const Preset& preset : kPresets) names.emplace_back(preset.name);
  return names;
}

absl::StatusOr<ModelSpec> PresetModel(const std::string& name) {
  for (const Preset& preset : kPresets) {
    if (name != preset.name) continue;
    ModelSpec spec;
    spec.hidden_size = preset.hidden_size;
    spec.intermediate_size = preset.intermediate_size;
    spec.num_layers = preset.num_layers;
    spec.density = 1 - preset.mean_sparsity;
    spec.activation = preset.activation;
    spec.threshold = preset.threshold;
    spec.dtype = preset.dtype;
    return spec;
  }
  return OutOfRange("preset", absl::StrJoin(PresetNames(), ", "), name);
}

absl::Status CheckModelSpec(const ModelSpec& spec) {
  absl::Status status = CheckCount("hidden-size", kMaxWidth, spec.hidden_size);
  status.Update(
      CheckCount("intermediate-size", kMaxWidth, spec.intermediate_size));
  status.Update(CheckCount("layers", kMaxLayers, spec.num_layers));
  status.Update(CheckCount("shards", spec.num_layers, spec.shards));
  status.Update(CheckCount("rows", kMaxInputRows, spec.input_rows));
  if (!status.ok()) return status;
  if (!(spec.density >= 0 && spec.density <= 1)) {
    return OutOfRange("density", "0 to 1", absl::StrCat(spec.density));
  }
  const bool is_fatrelu = spec.activation == "fatrelu";
  if (!is_fatrelu && spec.activation != "relu" && spec.activation != "drelu") {
    return OutOfRange("activation", "relu, fatrelu or drelu", spec.activation);
  }
  if (!(spec.threshold >= 0 && spec.threshold <= kMaxThreshold)) {
    return OutOfRange("threshold", absl::StrCat("0 to ", kMaxThreshold),
                      absl::StrCat(spec.threshold));
  }
  if (!is_fatrelu && spec.threshold != 0) {
    return OutOfRange("threshold", absl::StrCat("0 with ", spec.activation),
                      absl::StrCat(spec.threshold));
  }
  if (spec.out.empty()) return OutOfRange("out", "a folder", "none");
  return absl::OkStatus();
}

}  // namespace sparse_ffn
