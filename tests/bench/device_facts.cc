#include "tests/bench/device_facts.h"

#include <cuda_runtime_api.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_handles.h"

namespace sparse_ffn::bench {
namespace {

using cuda::ToStatus;

std::string KernelDriver() {
  std::ifstream file("/sys/module/nvidia/version");
  std::string version;
  return file >> version ? version : "unknown";
}

// 13020 is CUDA 13.2.
std::string VersionText(int version) {
  return absl::StrCat(version / 1000, ".", version % 1000 / 10);
}

}  // namespace

nlohmann::json DeviceFacts::Json() const {
  return {{"gpu", gpu},
          {"driver", driver},
          {"driver_cuda", driver_cuda},
          {"runtime_cuda", runtime_cuda},
          {"rated_sm_mhz", rated_sm_mhz},
          {"rated_memory_mhz", rated_memory_mhz}};
}

absl::StatusOr<DeviceFacts> GetDeviceFacts() {
  cudaDeviceProp device;
  int driver = 0;
  int runtime = 0;
  int sm_khz = 0;
  int memory_khz = 0;
  absl::Status status =
      ToStatus(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  status.Update(
      ToStatus(cudaDriverGetVersion(&driver), "cudaDriverGetVersion"));
  status.Update(
      ToStatus(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion"));
  status.Update(
      ToStatus(cudaDeviceGetAttribute(&sm_khz, cudaDevAttrClockRate, 0),
               "cudaDeviceGetAttribute"));
  status.Update(ToStatus(
      cudaDeviceGetAttribute(&memory_khz, cudaDevAttrMemoryClockRate, 0),
      "cudaDeviceGetAttribute"));
  if (!status.ok()) return status;
  return DeviceFacts{device.name,          KernelDriver(), VersionText(driver),
                     VersionText(runtime), sm_khz / 1000,  memory_khz / 1000};
}

}  // namespace sparse_ffn::bench
