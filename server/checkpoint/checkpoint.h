// A Hugging Face checkpoint folder as a set of FFN layers: config.json plus
// model.safetensors, or model.safetensors.index.json and its shards. Everything
// in the files is checked before it is believed. Shards must have plain file
// names, so that an index cannot reach outside the folder; the files themselves
// may be symbolic links, since that is how download caches are laid out.
#ifndef SPARSE_FFN_SERVER_CHECKPOINT_CHECKPOINT_H_
#define SPARSE_FFN_SERVER_CHECKPOINT_CHECKPOINT_H_

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/matrix.h"
#include "server/checkpoint/model_config.h"
#include "server/checkpoint/safetensors.h"

namespace sparse_ffn {

// Names in the folder: the weights are in the one file, or where the index
// says.
inline constexpr char kConfigFile[] = "config.json";
inline constexpr char kSingleFile[] = "model.safetensors";
inline constexpr char kIndexFile[] = "model.safetensors.index.json";

// Views into the mapped files as torch stores them; may be unaligned.
struct LayerTensors {
  ConstMatrix gate_proj;  // [intermediate, hidden]
  ConstMatrix up_proj;    // [intermediate, hidden]
  ConstMatrix down_proj;  // [hidden, intermediate]
};

// Move-only; keeps its files mapped. Layer() may be called from any thread.
class Checkpoint {
 public:
  // Maps the files and checks shape and type of every FFN tensor they hold; no
  // tensor data is read. The message of an error names file, tensor, what was
  // expected and what was found.
  static absl::StatusOr<Checkpoint> Open(const std::string& folder);

  const ModelConfig& config() const { return config_; }
  // Type of all FFN tensors.
  DataType dtype() const { return dtype_; }
  // Last component of the folder's absolute path.
  const std::string& name() const { return name_; }
  // Layers of which all three tensors are there, ascending. Never empty.
  const std::vector<int>& layers() const { return layers_; }
  // NOT_FOUND for a layer that is not among layers().
  absl::StatusOr<LayerTensors> Layer(int layer) const;

  // Copies rows [first_row, first_row + rows) of a view that Layer() gave, past
  // the mapping: where the file has become too short or the disk fails, this
  // is a DATA_LOSS error and touching the view a SIGBUS. Any thread.
  absl::Status ReadRows(ConstMatrix view, size_t first_row, size_t rows,
                        void* destination) const;

  // Asks the system to read a layer ahead. Any thread.
  void Prefetch(int layer) const;

 private:
  Checkpoint() = default;

  ModelConfig config_;
  DataType dtype_ = DataType::kFloat32;
  std::string name_;
  std::vector<int> layers_;
  std::map<int, LayerTensors> tensors_;
  std::vector<SafetensorsFile> files_;
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_CHECKPOINT_CHECKPOINT_H_
