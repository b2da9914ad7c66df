// Device time of queued work: captured once as a CUDA graph, replayed, median.
#ifndef SPARSE_FFN_TESTS_BENCH_GRAPH_TIMER_H_
#define SPARSE_FFN_TESTS_BENCH_GRAPH_TIMER_H_

#include <cuda_runtime_api.h>

#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sparse_ffn::bench {

inline constexpr int kReplays = 15;

// Median microseconds of one replay of what `queue` puts on `stream`, over
// kReplays replays after two for warming up. `queue` runs twice: first as it
// is, since libraries load their kernels when they first use them; then
// captured, when nothing may be allocated.
absl::StatusOr<double> MedianMicroseconds(
    cudaStream_t stream, const std::function<absl::Status()>& queue);

}  // namespace sparse_ffn::bench

#endif  // SPARSE_FFN_TESTS_BENCH_GRAPH_TIMER_H_
