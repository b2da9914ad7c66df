#include "server/start_backend.h"

#include <cstddef>

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

void FillCanary(const FfnConfig& ffn, FfnLane* lane) {
  const Matrix input = lane->input(1);
  for (size_t i = 0; i < ffn.hidden_size; ++i) {
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
                       FfnLane* lane) {
  FillCanary(ffn, lane);
  for (int layer : layers) {
    for (Execution execution : {Execution::kSparse, Execution::kDense}) {
      absl::StatusOr<FfnResult> result = lane->Run(layer, 1, execution);
      if (!result.ok()) return result.status();
      absl::Status finite = CheckOutput(layer, *result);
      if (!finite.ok()) return finite;
    }
  }
  return absl::OkStatus();
}

}  // namespace sparse_ffn
