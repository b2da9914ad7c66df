// Any bytes as a config.json, an index of shards, an .npy file or path costs,
// chosen by the first of them: an error, or values within their limits.
#include <cmath>
#include <cstdlib>

#include "client/npy.h"
#include "server/checkpoint/model_config.h"
#include "server/checkpoint/shard_index.h"
#include "server/path_costs_file.h"
#include "tests/fuzz/fuzz_body.h"
#include "tests/fuzz/memory_file.h"

namespace sparse_ffn {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

void CheckConfig(const std::string& path) {
  const absl::StatusOr<ModelConfig> config = ReadModelConfig(path);
  if (!config.ok()) return;
  Require(config->hidden_size >= 1 && config->intermediate_size >= 1);
  Require(config->num_hidden_layers >= 1);
  if (!config->hidden_act_param) return;
  Require(std::isfinite(*config->hidden_act_param));
  Require(*config->hidden_act_param >= 0);
}

void CheckIndex(const std::string& path) {
  const absl::StatusOr<ShardIndex> index = ReadShardIndex(path);
  if (!index.ok()) return;
  for (const auto& [tensor, shard] : *index) {
    Require(!tensor.empty() && !shard.empty());
    Require(shard.find('/') == std::string::npos && shard != "..");
  }
}

void CheckNpy(const std::string& path, size_t size) {
  const absl::StatusOr<NpyArray> array = ReadNpy(path);
  if (!array.ok()) return;
  Require(array->view().bytes() == array->data.size());
  Require(array->data.size() <= size);
}

void CheckPathCosts(const std::string& path) {
  const auto costs = ReadPathCosts(path, FfnConfig(), "gpu");
  if (!costs.ok()) return;
  for (const PathCost& cost : *costs) {
    Require(static_cast<size_t>(cost.path) < kFfnPaths);
    Require(std::isfinite(cost.union_density));
    Require(std::isfinite(cost.microseconds));
  }
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  std::string npy("2\x93NUMPY\x01\0\x38\0", 11);
  npy += "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1)}";
  npy.resize(11 + 0x38, ' ');
  return {
      R"(0{"hidden_size":8,"intermediate_size":16,"num_hidden_layers":2,)"
      R"("hidden_act":"fatrelu","hidden_act_param":0.01,"x":[{"y":null}]})",
      R"(1{"metadata":{"total_size":9},"weight_map":{)"
      R"("model.layers.0.mlp.gate_proj.weight":"a.safetensors",)"
      R"("model.norm.weight":"b.safetensors"}})",
      npy + "12345678",
      R"(3{"format":1,"server_version":")" SPARSE_FFN_VERSION
      R"(","device_name":"gpu","hidden_size":0,"intermediate_size":0,)"
      R"("weights_dtype":"bfloat16","activation":"relu",)"
      R"("max_batch_tokens":0,"costs":[{"path":"fused","tokens":1,)"
      R"("union_density":0.5,"microseconds":31.5}]})",
  };
}

std::string Repaired(std::string input) { return input; }

}  // namespace sparse_ffn

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static sparse_ffn::MemoryFile& file = *new sparse_ffn::MemoryFile;
  if (size == 0) return 0;
  file.Fill(data + 1, size - 1);
  switch (data[0] % 4) {
    case 0:
      sparse_ffn::CheckConfig(file.path());
      break;
    case 1:
      sparse_ffn::CheckIndex(file.path());
      break;
    case 2:
      sparse_ffn::CheckNpy(file.path(), size);
      break;
    default:
      sparse_ffn::CheckPathCosts(file.path());
  }
  return 0;
}
