// The benchmark's arithmetic: what follows from the times of a case.
#ifndef SPARSE_FFN_TESTS_BENCH_BENCH_FIGURES_H_
#define SPARSE_FFN_TESTS_BENCH_BENCH_FIGURES_H_

#include <vector>

#include "absl/types/span.h"

namespace sparse_ffn::bench {

// Microseconds a layer; 0 where not measured. Device time, but for the last
// three.
struct CaseTimes {
  double gate = 0;  // Each of the three steps alone.
  double step2 = 0;
  double step3 = 0;
  double steps = 0;  // All three.
  double fused = 0;
  double deterministic = 0;  // Fused, by a deterministic backend.
  // Of the dense path. Transposed: with down_proj as it is stored; natural: as
  // checkpoints have it.
  double product = 0;      // With gate_proj.
  double dense_step2 = 0;  // With up_proj, and the element-wise kernel.
  double dense_step3_transposed = 0;
  double dense_step3_natural = 0;
  double dense_transposed = 0;  // The whole.
  double dense_natural = 0;
  double host_to_host = 0;  // As the server runs sparse batches, in turn.
  double deterministic_host_to_host = 0;  // The same, with --deterministic.
  double unforeseen = 0;                  // Without, and none launched ahead.
};

// 0 where a time that it takes was not measured.
struct Figures {
  double floor_bytes = 0;  // That have to move: the gate, and the active rows
                           // of the other two matrices.
  double floor_us = 0;     // Reading them at the plain read bandwidth.
  double sparse_us = 0;    // The faster of fused and steps.
  double dense_us = 0;     // The faster of the two layouts.
  double bytes_per_second = 0;  // Of floor_bytes in sparse_us.
  double read_share = 0;        // That, of the plain read bandwidth.
  double to_floor = 0;          // sparse_us / floor_us
  double to_dense = 0;          // dense_us / sparse_us
  // Likewise, of a step alone. Step 2 begins with the choice of active neurons,
  // but for one token, where that is step 1's.
  double step2_to_dense = 0;
  double step3_to_dense = 0;
  double deterministic_to_sparse = 0;  // deterministic / sparse_us
};

// `read_bandwidth` in bytes a second.
Figures Derive(const CaseTimes& times, double union_density,
               double matrix_bytes, double read_bandwidth);

// The upper of the two middle ones where their number is even; 0 of none.
double Median(std::vector<double> values);

// Norm of the difference as a share of the norm of `expected`; 0 where there is
// no difference.
double RelativeError(absl::Span<const float> values,
                     absl::Span<const float> expected);

}  // namespace sparse_ffn::bench

#endif  // SPARSE_FFN_TESTS_BENCH_BENCH_FIGURES_H_
