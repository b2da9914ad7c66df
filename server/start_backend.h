// Which backend serves a model, and whether it works.
#ifndef SPARSE_FFN_SERVER_START_BACKEND_H_
#define SPARSE_FFN_SERVER_START_BACKEND_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/ffn_backend.h"
#include "server/config.h"

namespace sparse_ffn {

// The backend that `config` asks for. With kAuto that is the CUDA one, or the
// portable one where there is no GPU or none that takes the weights' type; a
// GPU that is too small is an error. Logs one line that says which and why.
absl::StatusOr<std::unique_ptr<FfnBackend>> StartBackend(
    const ServerConfig& config, const FfnConfig& ffn);

// Sends one token through each layer, over sparse and dense kernels; on a GPU
// also batches of 2, 4, 8 ... tokens through the first one, since there kernels
// are loaded when they first run. INTERNAL, naming the layer, when an output is
// not finite; else what Run returned.
absl::Status RunCanary(const FfnConfig& ffn, const std::vector<int>& layers,
                       const FfnBackend& backend, FfnLane* lane);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_START_BACKEND_H_
