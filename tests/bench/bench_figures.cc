#include "tests/bench/bench_figures.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace sparse_ffn::bench {
namespace {

double Faster(double a, double b) {
  if (a <= 0 || b <= 0) return std::max(a, b);
  return std::min(a, b);
}

}  // namespace

Figures Derive(const CaseTimes& times, double union_density,
               double matrix_bytes, double read_bandwidth) {
  Figures figures;
  figures.floor_bytes = (1 + 2 * union_density) * matrix_bytes;
  figures.floor_us = 1e6 * figures.floor_bytes / read_bandwidth;
  figures.sparse_us = Faster(times.fused, times.steps);
  figures.dense_us = Faster(times.dense_transposed, times.dense_natural);
  if (figures.sparse_us > 0) {
    figures.bytes_per_second = 1e6 * figures.floor_bytes / figures.sparse_us;
    figures.read_share = figures.bytes_per_second / read_bandwidth;
    figures.to_floor = figures.sparse_us / figures.floor_us;
    figures.to_dense = figures.dense_us / figures.sparse_us;
    figures.deterministic_to_sparse = times.deterministic / figures.sparse_us;
  }
  if (times.step2 > 0) figures.step2_to_dense = times.dense_step2 / times.step2;
  if (times.step3 > 0) {
    figures.step3_to_dense =
        Faster(times.dense_step3_transposed, times.dense_step3_natural) /
        times.step3;
  }
  return figures;
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle =
      values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double RelativeError(absl::Span<const float> values,
                     absl::Span<const float> expected) {
  double error = 0;
  double size = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    error += std::pow(double{values[i]} - expected[i], 2);
    size += std::pow(double{expected[i]}, 2);
  }
  return error > 0 ? std::sqrt(error / size) : error;
}

}  // namespace sparse_ffn::bench
