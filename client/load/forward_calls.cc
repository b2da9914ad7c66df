#include "client/load/forward_calls.h"

#include <chrono>

namespace sparse_ffn {

int64_t SteadyNowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

gpr_timespec ToGrpcDeadline(int64_t steady_ns) {
  constexpr int64_t kNsPerSecond = 1'000'000'000;
  gpr_timespec deadline;
  deadline.tv_sec = steady_ns / kNsPerSecond;
  deadline.tv_nsec = static_cast<int32_t>(steady_ns % kNsPerSecond);
  deadline.clock_type = GPR_CLOCK_MONOTONIC;
  return deadline;
}

}  // namespace sparse_ffn
