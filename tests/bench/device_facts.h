// What is known of the GPU and its software without running anything.
#ifndef SPARSE_FFN_TESTS_BENCH_DEVICE_FACTS_H_
#define SPARSE_FFN_TESTS_BENCH_DEVICE_FACTS_H_

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"

namespace sparse_ffn::bench {

struct DeviceFacts {
  std::string gpu;
  std::string driver;       // "unknown" where the kernel does not tell.
  std::string driver_cuda;  // The newest CUDA version that the driver knows.
  std::string runtime_cuda;
  int rated_sm_mhz = 0;
  int rated_memory_mhz = 0;

  nlohmann::json Json() const;
};

// Of device 0.
absl::StatusOr<DeviceFacts> GetDeviceFacts();

}  // namespace sparse_ffn::bench

#endif  // SPARSE_FFN_TESTS_BENCH_DEVICE_FACTS_H_
