#include "tests/bench/sm_clock.h"

namespace sparse_ffn::bench {
namespace {

__device__ uint64_t Nanoseconds() {
  uint64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

__global__ void CountCyclesKernel(uint64_t nanoseconds, uint64_t* passed) {
  const uint64_t begin = Nanoseconds();
  const long long first_cycle = clock64();
  uint64_t now = begin;
  while (now - begin < nanoseconds) now = Nanoseconds();
  passed[0] = static_cast<uint64_t>(clock64() - first_cycle);
  passed[1] = now - begin;
}

}  // namespace

cudaError_t CountCycles(uint64_t nanoseconds, uint64_t* passed,
                        cudaStream_t stream) {
  CountCyclesKernel<<<1, 1, 0, stream>>>(nanoseconds, passed);
  return cudaGetLastError();
}

}  // namespace sparse_ffn::bench
