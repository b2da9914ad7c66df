// Measured path costs as a JSON file that says what they were measured for:
//   {"format": 4, "server_version": "0.1.0", "device_name": "...",
//    "hidden_size": 4096, "intermediate_size": 11008,
//    "weights_dtype": "bfloat16", "activation": "relu",
//    "max_batch_tokens": 256,
//    "costs": [{"path": "sparse", "tokens": 1, "union_density": 0.25,
//               "microseconds": 61.5}, ...]}
#ifndef SPARSE_FFN_SERVER_PATH_COSTS_FILE_H_
#define SPARSE_FFN_SERVER_PATH_COSTS_FILE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/ffn_backend.h"

namespace sparse_ffn {

// The costs in the file at `path`, which anybody may have written. NOT_FOUND
// where there is none; otherwise an error names the file, the entry, what was
// expected and what was found: for a file that is no such JSON, lacks an entry,
// holds no cost or was measured for another device, model or server. The values
// of a cost are left for FfnBackend::SetPathCosts to check.
absl::StatusOr<std::vector<PathCost>> ReadPathCosts(
    const std::string& path, const FfnConfig& ffn,
    const std::string& device_name);

// Replaces what `path` held, or leaves it and returns an error.
absl::Status WritePathCosts(const std::string& path, const FfnConfig& ffn,
                            const std::string& device_name,
                            absl::Span<const PathCost> costs);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_PATH_COSTS_FILE_H_
