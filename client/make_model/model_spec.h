// What model to make.
#ifndef SPARSE_FFN_CLIENT_MAKE_MODEL_MODEL_SPEC_H_
#define SPARSE_FFN_CLIENT_MAKE_MODEL_MODEL_SPEC_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/matrix.h"

namespace sparse_ffn {

constexpr size_t kMaxInputRows = 1 << 16;
// Above this, scores and sums would leave the range of float16.
constexpr double kMaxThreshold = 1000;

struct ModelSpec {
  size_t hidden_size = 0;
  size_t intermediate_size = 0;
  size_t num_layers = 1;
  // Share of neurons with a score that passes the threshold, 0 to 1, over
  // inputs drawn by RandomInputs. 0 and 1 are exact, the rest expected values.
  double density = 0.11;
  std::string activation = "relu";  // Or "fatrelu" or "drelu".
  double threshold = 0;             // >= 0; 0 unless fatrelu.
  DataType dtype = DataType::kBFloat16;
  uint64_t seed = 1;
  size_t shards = 1;       // At most num_layers.
  size_t input_rows = 64;  // Of inputs.npy; not used with a replay.
  std::string replay;      // Path of activation rows, or empty: by density.
  std::string out;         // Folder, made where it is missing.
};

// The real model's sizes, activation, threshold, type and mean density.
// INVALID_ARGUMENT, naming the presets, for any other name.
absl::StatusOr<ModelSpec> PresetModel(const std::string& name);

std::vector<std::string> PresetNames();

// INVALID_ARGUMENT, naming the entry, where the model cannot be made.
absl::Status CheckModelSpec(const ModelSpec& spec);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_MAKE_MODEL_MODEL_SPEC_H_
