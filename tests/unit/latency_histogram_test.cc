#include "client/load/latency_histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

namespace sparse_ffn {
namespace {

constexpr uint64_t kValuesSeed = 20240607;
constexpr double kQuantiles[] = {0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1};

// The definition in the header, by sorting.
uint64_t ExactQuantile(std::vector<uint64_t> values, double quantile) {
  std::sort(values.begin(), values.end());
  const double rank = std::ceil(quantile * static_cast<double>(values.size()));
  return values[static_cast<size_t>(std::max(rank, 1.0)) - 1];
}

void ExpectMatchesExact(const LatencyHistogram& histogram,
                        const std::vector<uint64_t>& values) {
  ASSERT_EQ(histogram.count(), values.size());
  EXPECT_EQ(histogram.min_ns(),
            *std::min_element(values.begin(), values.end()));
  EXPECT_EQ(histogram.max_ns(),
            *std::max_element(values.begin(), values.end()));
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  EXPECT_NEAR(histogram.mean_ns(), sum / static_cast<double>(values.size()),
              1e-9 * sum);
  for (const double quantile : kQuantiles) {
    const auto exact = static_cast<double>(ExactQuantile(values, quantile));
    EXPECT_NEAR(histogram.QuantileNs(quantile), exact, 0.004 * exact)
        << "quantile " << quantile;
  }
}

TEST(LatencyHistogramTest, EmptyIsZero) {
  const LatencyHistogram histogram;
  EXPECT_EQ(histogram.count(), 0u);
  EXPECT_EQ(histogram.min_ns(), 0u);
  EXPECT_EQ(histogram.max_ns(), 0u);
  EXPECT_EQ(histogram.mean_ns(), 0);
  EXPECT_EQ(histogram.QuantileNs(0.5), 0);
}

TEST(LatencyHistogramTest, SmallValuesAreExact) {
  LatencyHistogram histogram;
  for (uint64_t value = 0; value < 256; ++value) histogram.Record(value);
  EXPECT_EQ(histogram.QuantileNs(0.5), 127);
  EXPECT_EQ(histogram.QuantileNs(1), 255);
}

TEST(LatencyHistogramTest, EveryMagnitudeIsWithinItsError) {
  for (int bit = 0; bit < 64; ++bit) {
    for (const uint64_t offset : {uint64_t{0}, uint64_t{1}, uint64_t{0x5555}}) {
      LatencyHistogram histogram;
      const uint64_t value = (uint64_t{1} << bit) + offset;
      histogram.Record(value);
      // Others on both sides, so that the extremes do not clamp the answer.
      histogram.Record(0);
      histogram.Record(UINT64_MAX);
      EXPECT_NEAR(histogram.QuantileNs(0.5), static_cast<double>(value),
                  0.004 * static_cast<double>(value));
    }
  }
}

TEST(LatencyHistogramTest, MatchesExactPercentilesOfRandomLatencies) {
  SCOPED_TRACE(testing::Message() << "seed " << kValuesSeed);
  std::mt19937_64 random(kValuesSeed);
  std::lognormal_distribution<double> usual(11, 0.3);
  std::lognormal_distribution<double> tail(15, 1.5);
  LatencyHistogram histogram;
  std::vector<uint64_t> values;
  for (int i = 0; i < 100000; ++i) {
    const double value = random() % 50 == 0 ? tail(random) : usual(random);
    values.push_back(static_cast<uint64_t>(value));
    histogram.Record(values.back());
  }
  ExpectMatchesExact(histogram, values);
}

TEST(LatencyHistogramTest, MergedIsAsIfRecordedInOne) {
  SCOPED_TRACE(testing::Message() << "seed " << kValuesSeed);
  std::mt19937_64 random(kValuesSeed);
  std::vector<uint64_t> values;
  LatencyHistogram parts[3];
  for (int i = 0; i < 3000; ++i) {
    values.push_back(random() >> (random() % 60));
    parts[i % 2].Record(values.back());  // The last part stays empty.
  }
  LatencyHistogram merged;
  for (const LatencyHistogram& part : parts) merged.Merge(part);
  ExpectMatchesExact(merged, values);
}

}  // namespace
}  // namespace sparse_ffn
