#include "server/checkpoint/tensor_names.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace sparse_ffn {
namespace {

constexpr absl::string_view kPrefix = "model.layers.";
constexpr size_t kMaxLayerDigits = 9;  // Always fits an int.

// Digits only, and no leading zeros, so that no two names mean one layer.
int ParseLayer(absl::string_view digits) {
  if (digits.empty() || digits.size() > kMaxLayerDigits) return -1;
  if (digits.size() > 1 && digits[0] == '0') return -1;
  int layer = 0;
  for (const char c : digits) {
    if (c < '0' || c > '9') return -1;
    layer = 10 * layer + (c - '0');
  }
  return layer;
}

}  // namespace

const char* ProjectionName(Projection projection) {
  switch (projection) {
    case Projection::kGate:
      return "gate_proj";
    case Projection::kUp:
      return "up_proj";
    case Projection::kDown:
      break;
  }
  return "down_proj";
}

std::string FfnTensorName(int layer, Projection projection) {
  return absl::StrCat("model.layers.", layer, ".mlp.",
                      ProjectionName(projection), ".weight");
}

std::optional<FfnTensorLabel> ParseFfnTensorName(absl::string_view name) {
  if (!absl::ConsumePrefix(&name, kPrefix)) return std::nullopt;
  FfnTensorLabel label;
  if (absl::ConsumeSuffix(&name, ".bias")) {
    label.is_bias = true;
  } else if (!absl::ConsumeSuffix(&name, ".weight")) {
    return std::nullopt;
  }
  for (const Projection projection :
       {Projection::kGate, Projection::kUp, Projection::kDown}) {
    absl::string_view layer = name;
    if (!absl::ConsumeSuffix(&layer, ProjectionName(projection)) ||
        !absl::ConsumeSuffix(&layer, ".mlp.")) {
      continue;
    }
    label.projection = projection;
    label.layer = ParseLayer(layer);
    return label;
  }
  return std::nullopt;
}

}  // namespace sparse_ffn
