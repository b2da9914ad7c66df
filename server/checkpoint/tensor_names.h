// Names of the FFN tensors in a Hugging Face checkpoint.
#ifndef SPARSE_FFN_SERVER_CHECKPOINT_TENSOR_NAMES_H_
#define SPARSE_FFN_SERVER_CHECKPOINT_TENSOR_NAMES_H_

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace sparse_ffn {

enum class Projection { kGate, kUp, kDown };

// "gate_proj", "up_proj" or "down_proj".
const char* ProjectionName(Projection projection);

// "model.layers.3.mlp.gate_proj.weight".
std::string FfnTensorName(int layer, Projection projection);

// What a name that looks like that of an FFN tensor says.
struct FfnTensorLabel {
  Projection projection = Projection::kGate;
  int layer = -1;        // -1 where the name holds no plain decimal number.
  bool is_bias = false;  // ".bias" rather than ".weight".
};

// Nothing for the name of another tensor.
std::optional<FfnTensorLabel> ParseFfnTensorName(absl::string_view name);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_CHECKPOINT_TENSOR_NAMES_H_
