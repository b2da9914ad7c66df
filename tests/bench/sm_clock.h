// The clock of the multiprocessors, as a kernel sees it.
#ifndef SPARSE_FFN_TESTS_BENCH_SM_CLOCK_H_
#define SPARSE_FFN_TESTS_BENCH_SM_CLOCK_H_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace sparse_ffn::bench {

// Lets one thread spin for `nanoseconds` of the GPU's timer and writes what
// passed, two numbers that the device can reach: cycles of its multiprocessor,
// then nanoseconds.
cudaError_t CountCycles(uint64_t nanoseconds, uint64_t* passed,
                        cudaStream_t stream);

}  // namespace sparse_ffn::bench

#endif  // SPARSE_FFN_TESTS_BENCH_SM_CLOCK_H_
