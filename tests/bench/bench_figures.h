// The benchmark's arithmetic: what follows from the times of a case.
#ifndef SPARSE_FFN_TESTS_BENCH_BENCH_FIGURES_H_
#define SPARSE_FFN_TESTS_BENCH_BENCH_FIGURES_H_

#include <vector>

#include "absl/types/span.h"

namespace sparse_ffn::bench {

// Microseconds a layer; 0 where not measured. Device time, but for the last.
struct CaseTimes {
  double gate = 0;   // Step 1.
  double step2 = 0;  // What it adds to step 1,
  double step3 = 0;  // and what it adds to both.
  double steps = 0;  // All three.
  double fused = 0;
  double product = 0;           // Of the dense path, with gate_proj.
  double dense_up = 0;          // With the element-wise kernel.
  double dense_transposed = 0;  // The whole, with down_proj as it is stored,
  double dense_natural = 0;     // and with down_proj as checkpoints have it.
  double host_to_host = 0;      // As the server runs sparse batches.
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
