#include "client/load/latency_histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace sparse_ffn {
namespace {

constexpr int kSubBucketBits = 7;
constexpr size_t kSubBuckets = size_t{1} << kSubBucketBits;
constexpr int kMaxShift = 64 - kSubBucketBits - 1;
constexpr size_t kBuckets = (kMaxShift + 2) * kSubBuckets;

}  // namespace

LatencyHistogram::LatencyHistogram() : counts_(kBuckets) {}

size_t LatencyHistogram::BucketOf(uint64_t value) {
  const int shift =
      std::max(0, static_cast<int>(std::bit_width(value)) - kSubBucketBits - 1);
  return static_cast<size_t>(shift) * kSubBuckets +
         static_cast<size_t>(value >> shift);
}

double LatencyHistogram::BucketMiddle(size_t bucket) {
  if (bucket < 2 * kSubBuckets) return static_cast<double>(bucket);
  const int shift = static_cast<int>(bucket / kSubBuckets) - 1;
  const double width = std::ldexp(1.0, shift);
  const double low =
      static_cast<double>(kSubBuckets + bucket % kSubBuckets) * width;
  return low + (width - 1) / 2;
}

void LatencyHistogram::Record(uint64_t nanoseconds) {
  ++counts_[BucketOf(nanoseconds)];
  ++count_;
  min_ns_ = std::min(min_ns_, nanoseconds);
  max_ns_ = std::max(max_ns_, nanoseconds);
  sum_ns_ += static_cast<double>(nanoseconds);
}

void LatencyHistogram::Merge(const LatencyHistogram& other) {
  for (size_t i = 0; i < kBuckets; ++i) counts_[i] += other.counts_[i];
  count_ += other.count_;
  min_ns_ = std::min(min_ns_, other.min_ns_);
  max_ns_ = std::max(max_ns_, other.max_ns_);
  sum_ns_ += other.sum_ns_;
}

double LatencyHistogram::mean_ns() const {
  return count_ == 0 ? 0 : sum_ns_ / static_cast<double>(count_);
}

double LatencyHistogram::QuantileNs(double quantile) const {
  if (count_ == 0) return 0;
  const double wanted =
      std::ceil(std::clamp(quantile, 0.0, 1.0) * static_cast<double>(count_));
  const uint64_t rank = std::max<uint64_t>(1, static_cast<uint64_t>(wanted));
  uint64_t seen = 0;
  for (size_t i = 0; i < kBuckets; ++i) {
    seen += counts_[i];
    if (seen >= rank) {
      return std::clamp(BucketMiddle(i), static_cast<double>(min_ns_),
                        static_cast<double>(max_ns_));
    }
  }
  return static_cast<double>(max_ns_);
}

}  // namespace sparse_ffn
