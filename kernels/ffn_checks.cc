#include "kernels/ffn_checks.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/matrix.h"

namespace sparse_ffn {
namespace {

constexpr size_t kMaxSize = size_t{1} << 24;
constexpr size_t kMaxBatchElements = (size_t{1} << 31) - 1;

}  // namespace

absl::Status CheckConfig(const FfnConfig& config) {
  for (const auto& [name, value, most] :
       {std::tuple("hidden_size", config.hidden_size, kMaxSize),
        std::tuple("intermediate_size", config.intermediate_size, kMaxSize),
        std::tuple("max_batch_tokens", config.max_batch_tokens,
                   kMaxBatchTokens)}) {
    if (value < 1 || value > most) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": expected 1 to ", most, ", got ", value));
    }
  }
  const size_t widest = std::max(config.hidden_size, config.intermediate_size);
  if (config.max_batch_tokens > kMaxBatchElements / widest) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_batch_tokens: expected at most ", kMaxBatchElements / widest,
        " with rows of ", widest, " elements, got ", config.max_batch_tokens));
  }
  if (!std::isfinite(config.threshold) || config.threshold < 0 ||
      (config.threshold > 0 && config.activation != Activation::kFatRelu)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "threshold: expected a finite number >= 0, and 0 unless the activation "
        "is fatrelu; got ",
        config.threshold, " with ", ActivationName(config.activation)));
  }
  if (config.launch_ahead_us > kMaxLaunchAheadUs) {
    return absl::InvalidArgumentError(
        absl::StrCat("launch_ahead_us: expected at most ", kMaxLaunchAheadUs,
                     ", got ", config.launch_ahead_us));
  }
  return absl::OkStatus();
}

absl::Status CheckWeights(const FfnConfig& config, const FfnWeights& weights) {
  for (const auto& [name, matrix] :
       {std::pair("gate_proj", weights.gate_proj),
        std::pair("up_proj", weights.up_proj),
        std::pair("down_proj", weights.down_proj)}) {
    if (matrix.rows == config.intermediate_size &&
        matrix.cols == config.hidden_size &&
        matrix.dtype == config.weights_dtype && matrix.data != nullptr) {
      continue;
    }
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": expected ", DataTypeName(config.weights_dtype), " [",
        config.intermediate_size, ", ", config.hidden_size, "], got ",
        DataTypeName(matrix.dtype), " [", matrix.rows, ", ", matrix.cols, "]",
        matrix.data == nullptr ? " without data" : ""));
  }
  return absl::OkStatus();
}

}  // namespace sparse_ffn
