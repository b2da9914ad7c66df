// The folder that a made checkpoint goes to, and the names of its files.
#ifndef SPARSE_FFN_CLIENT_MAKE_MODEL_OUTPUT_FOLDER_H_
#define SPARSE_FFN_CLIENT_MAKE_MODEL_OUTPUT_FOLDER_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"

namespace sparse_ffn {

inline constexpr char kInputsFile[] = "inputs.npy";

// kSingleFile, or "model-00002-of-00003.safetensors" for shard 1 of 3.
std::string ShardFile(size_t shard, size_t shards);

// Makes `folder` where it is missing, and removes what an earlier model left
// there that one of `shards` shards does not overwrite: another number of
// shards, an index without shards. Files of other names stay.
// FAILED_PRECONDITION where the folder cannot be made, or holds a checkpoint
// without inputs.npy, which was not made here and may be precious.
absl::Status PrepareFolder(const std::string& folder, size_t shards);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_MAKE_MODEL_OUTPUT_FOLDER_H_
