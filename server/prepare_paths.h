// How the CUDA backend comes to know which of its paths is the faster one: from
// --path-costs FILE or by measuring. The portable one is always sparse;
// where FfnConfig::deterministic is set there is no choice.
#ifndef SPARSE_FFN_SERVER_PREPARE_PATHS_H_
#define SPARSE_FFN_SERVER_PREPARE_PATHS_H_

#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/ffn_backend.h"
#include "server/config.h"

namespace sparse_ffn {

// Before layers are loaded, as a bad file should be known early: gives
// `backend` the costs in the file. True where there is nothing left to measure.
// Errors name the file.
absl::StatusOr<bool> ReadPaths(const ServerConfig& config, const FfnConfig& ffn,
                               FfnBackend* backend);

// Once layers are loaded and ReadPaths has returned false: measures, gives
// `backend` the costs, and writes the file. Logs what came of it. `progress` is
// called every now and then. Errors are those of MeasurePaths and of writing.
absl::Status MeasurePaths(const ServerConfig& config, const FfnConfig& ffn,
                          FfnBackend* backend,
                          const std::function<void()>& progress);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_PREPARE_PATHS_H_
