#include "server/checkpoint/checkpoint.h"

#include <sys/stat.h>

#include <filesystem>
#include <map>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/checkpoint/quoted.h"
#include "server/checkpoint/shard_index.h"
#include "server/checkpoint/tensor_names.h"

namespace sparse_ffn {
namespace {

constexpr size_t kMaxShards = 512;

std::string Join(const std::string& folder, const std::string& name) {
  return absl::StrCat(folder, "/", name);
}

bool Exists(const std::string& path) {
  struct stat info;
  return lstat(path.c_str(), &info) == 0;
}

bool IsFfnTensor(absl::string_view name) {
  return ParseFfnTensorName(name).has_value();
}

std::string FolderName(const std::string& folder) {
  std::error_code error;
  std::filesystem::path path = std::filesystem::absolute(folder, error);
  path = path.lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path.filename().string();
}

std::string ShapeOf(size_t rows, size_t cols) {
  return absl::StrCat("[", rows, ", ", cols, "]");
}

absl::Status Wrong(const std::string& path, const std::string& tensor,
                   const std::string& expected, const std::string& found) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": tensor ",
                                                 Quoted(tensor), ": expected ",
                                                 expected, ", found ", found));
}

// Which file each FFN tensor is in; for one file without an index, empty.
struct FileList {
  std::vector<std::string> paths;
  std::map<std::string, std::string> path_by_tensor;
};

absl::StatusOr<FileList> ListFiles(const std::string& folder) {
  const std::string single = Join(folder, kSingleFile);
  if (Exists(single)) return FileList{{single}, {}};
  const std::string index_path = Join(folder, kIndexFile);
  if (!Exists(index_path)) {
    return absl::NotFoundError(absl::StrCat(folder, ": expected ", kSingleFile,
                                            " or ", kIndexFile,
                                            ", found neither"));
  }
  absl::StatusOr<ShardIndex> index = ReadShardIndex(index_path);
  if (!index.ok()) return index.status();
  FileList files;
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : *index) {
    files.path_by_tensor[tensor] = Join(folder, shard);
    if (!shards.insert(shard).second) continue;
    if (shards.size() > kMaxShards) {
      return absl::InvalidArgumentError(
          absl::StrCat(index_path, ": expected at most ", kMaxShards,
                       " shards with FFN tensors, found more"));
    }
    files.paths.push_back(Join(folder, shard));
  }
  return files;
}

// Collects the tensors of all files and checks them against the configuration.
class LayerCollector {
 public:
  explicit LayerCollector(const ModelConfig& config) : config_(config) {}

  absl::Status Add(const SafetensorsFile& file, const std::string& name) {
    const FfnTensorLabel label = *ParseFfnTensorName(name);
    const std::string& path = file.path();
    if (label.layer < 0 ||
        static_cast<size_t>(label.layer) >= config_.num_hidden_layers) {
      return Wrong(
          path, name,
          absl::StrCat("a layer from 0 to ", config_.num_hidden_layers - 1),
          "another");
    }
    if (label.is_bias) {
      return Wrong(path, name, "an FFN without biases", "one");
    }
    absl::StatusOr<ConstMatrix> view = file.Tensor(name);
    if (!view.ok()) return view.status();
    if (absl::Status status = CheckShape(path, name, label, *view);
        !status.ok()) {
      return status;
    }
    if (first_name_.empty()) {
      first_name_ = name;
      dtype_ = view->dtype;
    } else if (view->dtype != dtype_) {
      return Wrong(
          path, name,
          absl::StrCat(DataTypeName(dtype_), " as in ", Quoted(first_name_)),
          DataTypeName(view->dtype));
    }
    ConstMatrix& slot = Slot(label);
    if (slot.data != nullptr) {
      return Wrong(path, name, "it in one file", "it in two");
    }
    slot = *view;
    return absl::OkStatus();
  }

  absl::Status Finish(const std::string& folder) const {
    if (tensors_.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          folder, ": expected tensors such as ",
          Quoted(FfnTensorName(0, Projection::kGate)), ", found none"));
    }
    for (const auto& [layer, tensors] : tensors_) {
      for (const auto& [projection, view] :
           {std::pair(Projection::kGate, tensors.gate_proj),
            std::pair(Projection::kUp, tensors.up_proj),
            std::pair(Projection::kDown, tensors.down_proj)}) {
        if (view.data == nullptr) {
          return Wrong(folder, FfnTensorName(layer, projection),
                       "gate_proj, up_proj and down_proj of each layer",
                       "no such tensor");
        }
      }
    }
    return absl::OkStatus();
  }

  DataType dtype() const { return dtype_; }
  std::map<int, LayerTensors> TakeTensors() { return std::move(tensors_); }

 private:
  absl::Status CheckShape(const std::string& path, const std::string& name,
                          const FfnTensorLabel& label, ConstMatrix view) const {
    const bool is_down = label.projection == Projection::kDown;
    const size_t rows =
        is_down ? config_.hidden_size : config_.intermediate_size;
    const size_t cols =
        is_down ? config_.intermediate_size : config_.hidden_size;
    if (view.rows == rows && view.cols == cols) return absl::OkStatus();
    return Wrong(path, name,
                 absl::StrCat("shape ", ShapeOf(rows, cols), " (from ",
                              kConfigFile, ")"),
                 ShapeOf(view.rows, view.cols));
  }

  ConstMatrix& Slot(const FfnTensorLabel& label) {
    LayerTensors& tensors = tensors_[label.layer];
    switch (label.projection) {
      case Projection::kGate:
        return tensors.gate_proj;
      case Projection::kUp:
        return tensors.up_proj;
      case Projection::kDown:
        break;
    }
    return tensors.down_proj;
  }

  const ModelConfig& config_;
  std::string first_name_;
  DataType dtype_ = DataType::kFloat32;
  std::map<int, LayerTensors> tensors_;
};

// The tensor must be where the index says, and the index must say it.
absl::Status CheckAgainstIndex(const FileList& files,
                               const SafetensorsFile& file) {
  if (files.path_by_tensor.empty()) return absl::OkStatus();
  for (const auto& [tensor, path] : files.path_by_tensor) {
    if (path == file.path() && file.tensors().count(tensor) == 0) {
      return Wrong(path, tensor, "it here, as the index says",
                   "no such tensor");
    }
  }
  for (const auto& [tensor, unused] : file.tensors()) {
    const auto listed = files.path_by_tensor.find(tensor);
    if (listed == files.path_by_tensor.end() || listed->second != file.path()) {
      return Wrong(
          file.path(), tensor, "it to be listed for this file",
          listed == files.path_by_tensor.end() ? "no entry" : listed->second);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& folder) {
  absl::StatusOr<ModelConfig> config =
      ReadModelConfig(Join(folder, kConfigFile));
  if (!config.ok()) return config.status();
  absl::StatusOr<FileList> list = ListFiles(folder);
  if (!list.ok()) return list.status();

  Checkpoint checkpoint;
  LayerCollector collector(*config);
  for (const std::string& path : list->paths) {
    absl::StatusOr<SafetensorsFile> file =
        SafetensorsFile::Open(path, IsFfnTensor);
    if (!file.ok()) return file.status();
    absl::Status status = CheckAgainstIndex(*list, *file);
    for (const auto& [name, unused] : file->tensors()) {
      if (!status.ok()) break;
      status = collector.Add(*file, name);
    }
    if (!status.ok()) return status;
    checkpoint.files_.push_back(*std::move(file));
  }
  absl::Status status = collector.Finish(folder);
  if (!status.ok()) return status;

  checkpoint.dtype_ = collector.dtype();
  checkpoint.tensors_ = collector.TakeTensors();
  for (const auto& [layer, unused] : checkpoint.tensors_) {
    checkpoint.layers_.push_back(layer);
  }
  checkpoint.config_ = *std::move(config);
  checkpoint.name_ = FolderName(folder);
  return checkpoint;
}

absl::StatusOr<LayerTensors> Checkpoint::Layer(int layer) const {
  const auto found = tensors_.find(layer);
  if (found != tensors_.end()) return found->second;
  return absl::NotFoundError(
      absl::StrCat("layer ", layer, ": expected one of the ", layers_.size(),
                   " layers from ", layers_.front(), " to ", layers_.back()));
}

absl::Status Checkpoint::ReadRows(ConstMatrix view, size_t first_row,
                                  size_t rows, void* destination) const {
  for (const SafetensorsFile& file : files_) {
    if (file.Holds(view)) {
      return file.ReadRows(view, first_row, rows, destination);
    }
  }
  return absl::InvalidArgumentError("the view is of another checkpoint");
}

void Checkpoint::Prefetch(int layer) const {
  const auto found = tensors_.find(layer);
  if (found == tensors_.end()) return;
  const LayerTensors& tensors = found->second;
  for (const ConstMatrix view :
       {tensors.gate_proj, tensors.up_proj, tensors.down_proj}) {
    for (const SafetensorsFile& file : files_) {
      if (file.Holds(view)) file.Prefetch(view);
    }
  }
}

}  // namespace sparse_ffn
