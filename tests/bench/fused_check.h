// The fused kernel against the three steps, which other code computes, and
// launches of it in a row against those alone.
#ifndef SPARSE_FFN_TESTS_BENCH_FUSED_CHECK_H_
#define SPARSE_FFN_TESTS_BENCH_FUSED_CHECK_H_

#include "absl/status/statusor.h"
#include "tests/bench/timed_model.h"

namespace sparse_ffn::bench {

// Runs `runs` fresh batches of one token, and of two where the model takes
// them, fused and in steps, over the layers as they were prepared. The worst
// relative error; INTERNAL where they differ by more than rounding, or in the
// number of active neurons.
absl::StatusOr<double> CheckFused(TimedModel* model, int runs);

// Runs about `runs` fresh batches in rows of launches none of which waits for
// the one before, of one token, of two where the model takes them and of both
// in turn, and each alone: INTERNAL where a bit differs. False where the model
// has no form that does so, and nothing was run.
absl::StatusOr<bool> CheckFusedInARow(TimedModel* model, int runs);

}  // namespace sparse_ffn::bench

#endif  // SPARSE_FFN_TESTS_BENCH_FUSED_CHECK_H_
