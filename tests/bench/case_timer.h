// Device times of one case.
#ifndef SPARSE_FFN_TESTS_BENCH_CASE_TIMER_H_
#define SPARSE_FFN_TESTS_BENCH_CASE_TIMER_H_

#include "absl/status/statusor.h"
#include "tests/bench/bench_figures.h"
#include "tests/bench/bench_options.h"
#include "tests/bench/timed_model.h"

namespace sparse_ffn::bench {

// Of the paths in `options` that `tokens` tokens have, as the model was
// prepared. Dense is what any dense FFN needs and no more: three products of
// cuBLAS and one element-wise kernel between them.
absl::StatusOr<CaseTimes> TimeCase(TimedModel* model, int tokens,
                                   const Options& options);

}  // namespace sparse_ffn::bench

#endif  // SPARSE_FFN_TESTS_BENCH_CASE_TIMER_H_
