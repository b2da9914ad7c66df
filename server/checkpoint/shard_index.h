// model.safetensors.index.json: which shard holds which tensor.
#ifndef SPARSE_FFN_SERVER_CHECKPOINT_SHARD_INDEX_H_
#define SPARSE_FFN_SERVER_CHECKPOINT_SHARD_INDEX_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sparse_ffn {

// Shard file name by tensor name.
using ShardIndex = std::map<std::string, std::string>;

// The FFN tensors that the index at `path` lists. Every shard name in the file,
// of whatever tensor, must be a plain file name, so that it stays inside the
// folder. Errors name the file and the tensor.
absl::StatusOr<ShardIndex> ReadShardIndex(const std::string& path);

// `total_bytes`: of all tensors' data.
absl::Status WriteShardIndex(const ShardIndex& index, uint64_t total_bytes,
                             const std::string& path);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_CHECKPOINT_SHARD_INDEX_H_
