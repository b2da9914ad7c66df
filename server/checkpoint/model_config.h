// config.json of a checkpoint: the few entries that an FFN server needs.
#ifndef SPARSE_FFN_SERVER_CHECKPOINT_MODEL_CONFIG_H_
#define SPARSE_FFN_SERVER_CHECKPOINT_MODEL_CONFIG_H_

#include <cstddef>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sparse_ffn {

// Sane upper bounds.
constexpr size_t kMaxWidth = 1 << 22;  // Elements, and neurons.
constexpr size_t kMaxLayers = 10'000;

struct ModelConfig {
  size_t hidden_size = 0;
  size_t intermediate_size = 0;
  size_t num_hidden_layers = 0;
  // As written, any name; from hidden_activation where hidden_act is absent,
  // empty where both are.
  std::string hidden_act;
  // Finite and >= 0; nothing where absent or null.
  std::optional<double> hidden_act_param;
};

// Reads `path`. The error names the file, the entry, what was expected and what
// was found. Sizes are checked against those bounds.
absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& path);

// Writes `config` with the entries other loaders of such checkpoints expect.
// `torch_dtype` is a name such as "bfloat16".
absl::Status WriteModelConfig(const ModelConfig& config,
                              const std::string& torch_dtype,
                              const std::string& path);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_CHECKPOINT_MODEL_CONFIG_H_
