#include "client/make_model/make_model.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/make_model/layer_maker.h"
#include "client/make_model/output_folder.h"
#include "client/npy.h"
#include "server/checkpoint/checkpoint.h"
#include "server/checkpoint/model_config.h"
#include "server/checkpoint/safetensors_writer.h"
#include "server/checkpoint/shard_index.h"
#include "server/checkpoint/tensor_names.h"

namespace sparse_ffn {
namespace {

constexpr Projection kProjections[] = {Projection::kGate, Projection::kUp,
                                       Projection::kDown};

// Layers [first, last) of a shard.
std::pair<size_t, size_t> LayersOfShard(const ModelSpec& spec, size_t shard) {
  return {shard * spec.num_layers / spec.shards,
          (shard + 1) * spec.num_layers / spec.shards};
}

// Beside the FFN, as in a real checkpoint, tensors that a server must skip.
std::string NormName(size_t layer) {
  return absl::StrCat("model.layers.", layer, ".input_layernorm.weight");
}

std::vector<TensorSpec> TensorsOf(const ModelSpec& spec, size_t shard) {
  std::vector<TensorSpec> tensors;
  const auto [first, last] = LayersOfShard(spec, shard);
  for (size_t layer = first; layer < last; ++layer) {
    tensors.push_back({NormName(layer), spec.dtype, {spec.hidden_size}});
    for (const Projection projection : kProjections) {
      const bool is_down = projection == Projection::kDown;
      tensors.push_back(
          {FfnTensorName(static_cast<int>(layer), projection),
           spec.dtype,
           {is_down ? spec.hidden_size : spec.intermediate_size,
            is_down ? spec.intermediate_size : spec.hidden_size}});
    }
  }
  return tensors;
}

absl::Status AppendOnes(const ModelSpec& spec, SafetensorsWriter& writer) {
  const std::vector<float> ones(spec.hidden_size, 1.0F);
  std::vector<std::byte> stored(spec.hidden_size * DataTypeBytes(spec.dtype));
  Convert({ones.data(), 1, spec.hidden_size, DataType::kFloat32},
          {stored.data(), 1, spec.hidden_size, spec.dtype});
  return writer.Append(stored.data(), stored.size());
}

absl::Status AppendLayer(const ModelSpec& spec, size_t layer, LayerMaker& maker,
                         SafetensorsWriter& writer) {
  absl::Status status = AppendOnes(spec, writer);
  for (const Projection projection : kProjections) {
    if (!status.ok()) return status;
    absl::StatusOr<ConstMatrix> matrix = maker.Make(layer, projection);
    if (!matrix.ok()) {
      return absl::Status(matrix.status().code(),
                          absl::StrCat("layer ", layer, ": ",
                                       std::string(matrix.status().message())));
    }
    status = writer.Append(matrix->data, matrix->bytes());
  }
  return status;
}

absl::Status WriteShard(
    const ModelSpec& spec, size_t shard, LayerMaker& maker, MakeProgress& now,
    const std::function<void(const MakeProgress&)>& progress) {
  const std::vector<TensorSpec> tensors = TensorsOf(spec, shard);
  absl::StatusOr<SafetensorsWriter> writer = SafetensorsWriter::Create(
      absl::StrCat(spec.out, "/", ShardFile(shard, spec.shards)), tensors);
  if (!writer.ok()) return writer.status();
  uint64_t bytes = 0;
  for (const TensorSpec& tensor : tensors) bytes += tensor.bytes();
  const auto [first, last] = LayersOfShard(spec, shard);
  for (size_t layer = first; layer < last; ++layer) {
    absl::Status status = AppendLayer(spec, layer, maker, *writer);
    if (!status.ok()) return status;
    ++now.layers_done;
    now.bytes_written += bytes / (last - first);
    if (progress) progress(now);
  }
  return writer->Finish();
}

absl::Status WriteIndex(const ModelSpec& spec) {
  ShardIndex index;
  uint64_t bytes = 0;
  for (size_t shard = 0; shard < spec.shards; ++shard) {
    for (const TensorSpec& tensor : TensorsOf(spec, shard)) {
      index[tensor.name] = ShardFile(shard, spec.shards);
      bytes += tensor.bytes();
    }
  }
  return WriteShardIndex(index, bytes, absl::StrCat(spec.out, "/", kIndexFile));
}

absl::Status WriteConfig(const ModelSpec& spec) {
  ModelConfig config;
  config.hidden_size = spec.hidden_size;
  config.intermediate_size = spec.intermediate_size;
  config.num_hidden_layers = spec.num_layers;
  config.hidden_act = spec.activation;
  if (spec.activation == "fatrelu") config.hidden_act_param = spec.threshold;
  return WriteModelConfig(config, DataTypeName(spec.dtype),
                          absl::StrCat(spec.out, "/", kConfigFile));
}

}  // namespace

absl::Status MakeModel(
    const ModelSpec& spec,
    const std::function<void(const MakeProgress&)>& progress) {
  absl::Status status = CheckModelSpec(spec);
  if (!status.ok()) return status;
  absl::StatusOr<LayerMaker> maker = LayerMaker::Create(spec);
  if (!maker.ok()) return maker.status();
  status = PrepareFolder(spec.out, spec.shards);
  // First: it says that what comes after it was made here.
  if (status.ok()) {
    status = WriteNpy({maker->inputs().data(), maker->rows(), spec.hidden_size,
                       DataType::kFloat32},
                      absl::StrCat(spec.out, "/", kInputsFile));
  }
  if (status.ok()) status = WriteConfig(spec);
  MakeProgress now;
  now.layers_total = spec.num_layers;
  for (size_t shard = 0; shard < spec.shards && status.ok(); ++shard) {
    status = WriteShard(spec, shard, *maker, now, progress);
  }
  if (status.ok() && spec.shards > 1) status = WriteIndex(spec);
  return status;
}

}  // namespace sparse_ffn
