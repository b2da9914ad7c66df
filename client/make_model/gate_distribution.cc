#include "client/make_model/gate_distribution.h"

#include <algorithm>
#include <cmath>

namespace sparse_ffn {

double NormalQuantile(double probability) {
  double low = -9;
  double high = 9;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    const double share = std::erfc(-middle / std::sqrt(2.0)) / 2;
    (share < probability ? low : high) = middle;
  }
  // Rounded, so that the last bit of a machine's erfc does not matter.
  return std::round(low * 0x1p20) / 0x1p20;
}

GateDistribution::GateDistribution(size_t hidden_size, double density,
                                   double threshold, double score_deviation)
    : hidden_size_(hidden_size) {
  const auto size = static_cast<double>(hidden_size);
  if (density <= 0 || density >= 1) {
    // An input sums to at least size / 2, so equal weights cannot miss; noise
    // of a quarter of the mean is far too small to matter in long rows.
    const double mean = density <= 0 ? -4 * score_deviation
                                     : 2 * threshold + 4 * score_deviation;
    mean_ = static_cast<float>(mean / size);
    constexpr size_t kLongRow = 256;
    deviation_ = hidden_size < kLongRow ? 0 : std::abs(mean_) / 4;
    return;
  }
  const double mean =
      (threshold + NormalQuantile(density) * score_deviation) / size;
  const double row_variance = score_deviation * score_deviation / size;
  // Each term (mean + deviation z)(1 + e) varies by mean^2 + 2 deviation^2.
  const double variance =
      std::max(row_variance - mean * mean, row_variance / 8) / 2;
  mean_ = static_cast<float>(mean);
  deviation_ = static_cast<float>(std::sqrt(variance));
}

void GateDistribution::FillRow(const CounterRandom& random, float* row) const {
  for (size_t i = 0; i < hidden_size_; ++i) {
    row[i] = mean_ + deviation_ * random.Normal(i);
  }
}

}  // namespace sparse_ffn
