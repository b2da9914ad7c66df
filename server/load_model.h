// From a checkpoint folder to the layers of a backend, in two steps: OpenModel
// checks everything and says what backend is needed, LoadLayers fills it.
#ifndef SPARSE_FFN_SERVER_LOAD_MODEL_H_
#define SPARSE_FFN_SERVER_LOAD_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/ffn_backend.h"
#include "kernels/matrix.h"
#include "server/checkpoint/checkpoint.h"
#include "server/checkpoint/layer_ranges.h"

namespace sparse_ffn {

struct ModelOptions {
  std::string folder;
  std::vector<LayerRange> layers;  // Empty: all of the checkpoint's.
  // Each replaces what the checkpoint says.
  std::optional<Activation> activation;
  std::optional<double> threshold;
  std::optional<DataType> weights_dtype;
};

struct ModelPlan {
  Checkpoint checkpoint;
  std::string name;         // Of the checkpoint.
  std::vector<int> layers;  // To load, ascending, never empty.
  // max_batch_tokens and deterministic are left for the caller.
  FfnConfig config;
};

// Opens the checkpoint and settles the configuration; reads no tensor data.
// Errors say what to change:
//   an activation other than relu, fatrelu and drelu, which is not sparse
//   fatrelu without a threshold from the checkpoint or the options
//   a threshold that is no finite number >= 0, or not 0 with relu or drelu
//   layers that the checkpoint does not hold
absl::StatusOr<ModelPlan> OpenModel(const ModelOptions& options);

struct LoadProgress {
  size_t layers_done = 0;
  size_t layers_total = 0;
  uint64_t bytes_read = 0;  // From the checkpoint, so far.
  double seconds = 0;       // Since the start.
};

struct LoadedModel {
  uint64_t bytes_on_device = 0;
  uint64_t bytes_read = 0;
  double seconds = 0;
  std::string weights_hash;  // See WeightsHash; of the layers loaded.
};

// Adds each layer of `plan` to `backend`, down_proj transposed, all converted
// to config.weights_dtype. `progress` is called after each layer, on this
// thread; it may be empty. Holds one layer in memory beside the backend.
// INVALID_ARGUMENT, naming the tensor, where a value does not fit the type
// converted to; DATA_LOSS where a file shrinks meanwhile; or what AddLayer
// returned.
absl::StatusOr<LoadedModel> LoadLayers(
    const ModelPlan& plan, FfnBackend& backend,
    const std::function<void(const LoadProgress&)>& progress);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_LOAD_MODEL_H_
