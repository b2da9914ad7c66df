// Times of whole calls, host memory to host memory, as the server makes them.
#ifndef SPARSE_FFN_TESTS_BENCH_LANE_TIMES_H_
#define SPARSE_FFN_TESTS_BENCH_LANE_TIMES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/ffn_backend.h"
#include "tests/bench/bench_options.h"
#include "tests/bench/timed_model.h"

namespace sparse_ffn::bench {

// Microseconds of a sparse batch over the hidden states as they were prepared,
// median: fused where that is fast, but in steps where the lane times those.
// The layers run in turn; `launch_ahead_us` and `deterministic`: as in
// FfnConfig.
absl::StatusOr<double> HostToHost(TimedModel* model, int tokens,
                                  uint32_t launch_ahead_us, bool deterministic);

// Measures what the choice of a path goes by, as the server does at its start,
// for the lanes that are made from now on. Returns what it measured.
absl::StatusOr<std::vector<PathCost>> MeasureForAuto(TimedModel* model);

// Microseconds of calls as by HostToHost, launched ahead as in the server, each
// with an Execution of its own.
struct ExecutionTimes {
  double automatic;
  double sparse;
  double dense;
  FfnPath chosen;  // By the last of the automatic calls.
};
absl::StatusOr<ExecutionTimes> TimeExecutions(TimedModel* model, int tokens);

struct FirstCall {
  std::string path;
  double first_us;
  double median_us;  // Of calls that follow on the same lane.
};

// The first call on each path in `options` that the case has, each on a lane of
// its own: fused, then steps, then dense. Of use before anything else has
// called the kernels.
absl::StatusOr<std::vector<FirstCall>> TimeFirstCalls(TimedModel* model,
                                                      int tokens,
                                                      const Options& options);

}  // namespace sparse_ffn::bench

#endif  // SPARSE_FFN_TESTS_BENCH_LANE_TIMES_H_
