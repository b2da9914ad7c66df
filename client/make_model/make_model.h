// Writes a checkpoint folder for a ModelSpec.
#ifndef SPARSE_FFN_CLIENT_MAKE_MODEL_MAKE_MODEL_H_
#define SPARSE_FFN_CLIENT_MAKE_MODEL_MAKE_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "client/make_model/model_spec.h"

namespace sparse_ffn {

struct MakeProgress {
  size_t layers_done = 0;
  size_t layers_total = 0;
  uint64_t bytes_written = 0;
};

// Writes config.json, inputs.npy (float32 [rows, hidden]) and model.safetensors
// or, with more than one shard, its shards and index, in the place of an
// earlier model made there (see PrepareFolder). up_proj and down_proj are
// normal, of a size that keeps outputs near 1; gate_proj follows the density or
// the replay. Same spec, same bytes, whatever the machine and its threads.
// Holds one matrix in memory. `progress` is called after each layer, on this
// thread; it may be empty.
absl::Status MakeModel(
    const ModelSpec& spec,
    const std::function<void(const MakeProgress&)>& progress);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_MAKE_MODEL_MAKE_MODEL_H_
