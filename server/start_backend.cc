#include "server/start_backend.h"

#include <algorithm>
#include <cstddef>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/logging.h"

namespace sparse_ffn {
namespace {

using BackendOr = absl::StatusOr<std::unique_ptr<FfnBackend>>;

BackendOr Logged(BackendOr backend, const std::string& why) {
  if (backend.ok()) {
    LogInfo("backend chosen", {{"backend", (*backend)->name()},
                               {"device", (*backend)->device_name()},
                               {"why", why}});
  }
  return backend;
}

void FillCanary(size_t tokens, FfnLane* lane) {
  const Matrix input = lane->input(tokens);
  for (size_t i = 0; i < tokens * input.cols; ++i) {
    const float value = i % 2 == 0 ? 0.5F : -0.5F;
    auto* at =
        static_cast<std::byte*>(input.data) + i * DataTypeBytes(input.dtype);
    Convert(ConstMatrix{&value, 1, 1, DataType::kFloat32},
            Matrix{at, 1, 1, input.dtype});
  }
}

absl::Status CheckOutput(int layer, const FfnResult& result) {
  if (FindNonFinite(result.output, DataType::kFloat32) < 0) {
    return absl::OkStatus();
  }
  return absl::InternalError(
      absl::StrCat("layer ", layer,
                   " gives values that are not finite for a plain input; its "
                   "weights or the device are broken"));
}

absl::Status RunBatch(int layer, size_t tokens, FfnLane* lane) {
  FillCanary(tokens, lane);
  for (Execution execution : {Execution::kSparse, Execution::kDense}) {
    absl::StatusOr<FfnResult> result = lane->Run(layer, tokens, execution);
    if (!result.ok()) return result.status();
    absl::Status finite = CheckOutput(layer, *result);
    if (!finite.ok()) return finite;
  }
  return absl::OkStatus();
}

}  // namespace

BackendOr StartBackend(const ServerConfig& config, const FfnConfig& ffn) {
  if (config.backend == BackendChoice::kCpu) {
    return Logged(NewCpuBackend(ffn, config.threads), "asked for");
  }
  BackendOr cuda = NewCudaBackend(ffn, config.device);
  if (config.backend == BackendChoice::kCuda) {
    return Logged(std::move(cuda), "asked for");
  }
  if (cuda.ok() || absl::IsResourceExhausted(cuda.status())) {
    return Logged(std::move(cuda), "a GPU is there");
  }
  return Logged(NewCpuBackend(ffn, config.threads),
                std::string(cuda.status().message()));
}

absl::Status RunCanary(const FfnConfig& ffn, const std::vector<int>& layers,
                       const FfnBackend& backend, FfnLane* lane) {
  for (int layer : layers) {
    absl::Status status = RunBatch(layer, 1, lane);
    if (!status.ok()) return status;
  }
  if (!IsCuda(backend)) return absl::OkStatus();
  for (size_t tokens = 2; tokens < 2 * ffn.max_batch_tokens; tokens *= 2) {
    absl::Status status =
        RunBatch(layers.front(), std::min(tokens, ffn.max_batch_tokens), lane);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace sparse_ffn
