#include "client/load/arrival_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <vector>

#include "client/load/latency_histogram.h"

namespace sparse_ffn {
namespace {

constexpr uint64_t kSeed = 977;
constexpr int64_t kSecondNs = 1'000'000'000;
constexpr int64_t kMillisecondNs = 1'000'000;

std::vector<int64_t> TakeAll(ArrivalSchedule* schedule, int64_t until_ns) {
  std::vector<int64_t> taken;
  while (std::optional<int64_t> next = schedule->TakeDue(until_ns)) {
    taken.push_back(*next);
  }
  return taken;
}

TEST(ArrivalScheduleTest, HasTheRateAndTheSpreadOfAPoissonProcess) {
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  constexpr double kRate = 5000;
  ArrivalSchedule schedule(kRate, kSeed, 7 * kSecondNs);
  const std::vector<int64_t> arrivals = TakeAll(&schedule, 27 * kSecondNs);
  // 100 000 arrivals are expected; their standard deviation is 316.
  EXPECT_NEAR(static_cast<double>(arrivals.size()), 20 * kRate, 1600);
  EXPECT_GE(arrivals.front(), 7 * kSecondNs);
  double sum = 0;
  double squares = 0;
  for (size_t i = 1; i < arrivals.size(); ++i) {
    ASSERT_GE(arrivals[i], arrivals[i - 1]);
    const auto interval = static_cast<double>(arrivals[i] - arrivals[i - 1]);
    sum += interval;
    squares += interval * interval;
  }
  const auto count = static_cast<double>(arrivals.size() - 1);
  const double mean = sum / count;
  const double deviation = std::sqrt(squares / count - mean * mean);
  // Exponential intervals: as wide as they are long.
  EXPECT_NEAR(deviation / mean, 1, 0.03);
}

TEST(ArrivalScheduleTest, SeedDecidesTheTimes) {
  ArrivalSchedule one(100, kSeed, 0);
  ArrivalSchedule same(100, kSeed, 0);
  ArrivalSchedule other(100, kSeed + 1, 0);
  const std::vector<int64_t> times = TakeAll(&one, kSecondNs);
  EXPECT_EQ(TakeAll(&same, kSecondNs), times);
  EXPECT_NE(TakeAll(&other, kSecondNs), times);
}

TEST(ArrivalScheduleTest, NothingIsDueBeforeItsTime) {
  ArrivalSchedule schedule(10, kSeed, 0);
  const int64_t next_ns = schedule.next_ns();
  EXPECT_FALSE(schedule.TakeDue(next_ns - 1).has_value());
  EXPECT_EQ(schedule.next_ns(), next_ns);
  EXPECT_EQ(schedule.TakeDue(next_ns), next_ns);
}

TEST(ArrivalScheduleTest, LateTakingMovesNoArrival) {
  ArrivalSchedule punctual(1000, kSeed, 0);
  std::vector<int64_t> expected;
  while (punctual.next_ns() <= kSecondNs) {
    expected.push_back(*punctual.TakeDue(punctual.next_ns()));
  }
  ArrivalSchedule late(1000, kSeed, 0);
  EXPECT_EQ(TakeAll(&late, kSecondNs), expected);
}

// A server that answers one request at a time in `service_ns`, and does nothing
// from `stall_begin_ns` to `stall_end_ns`; virtual time, one request in flight.
struct Measured {
  LatencyHistogram from_intended_start;
  LatencyHistogram from_sending;
};

Measured RunAgainstStallingServer(int64_t stall_begin_ns, int64_t stall_end_ns,
                                  int64_t service_ns) {
  Measured measured;
  ArrivalSchedule schedule(1000, kSeed, 0);
  int64_t now_ns = 0;
  while (schedule.next_ns() < 10 * kSecondNs) {
    now_ns = std::max(now_ns, schedule.next_ns());
    const int64_t intended_ns = *schedule.TakeDue(now_ns);
    const int64_t sent_ns = now_ns;
    if (now_ns >= stall_begin_ns) now_ns = std::max(now_ns, stall_end_ns);
    now_ns += service_ns;
    measured.from_intended_start.Record(
        static_cast<uint64_t>(now_ns - intended_ns));
    measured.from_sending.Record(static_cast<uint64_t>(now_ns - sent_ns));
  }
  return measured;
}

TEST(ArrivalScheduleTest, AStallShowsInThePercentiles) {
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  // Two of ten seconds: a fifth of the requests arrive during the stall.
  const Measured measured = RunAgainstStallingServer(
      3 * kSecondNs, 5 * kSecondNs, kMillisecondNs / 10);
  EXPECT_LT(measured.from_intended_start.QuantileNs(0.5), kMillisecondNs);
  EXPECT_NEAR(measured.from_intended_start.QuantileNs(0.9), kSecondNs,
              0.3 * kSecondNs);
  EXPECT_GT(measured.from_intended_start.QuantileNs(0.99), 1.7 * kSecondNs);
  // Counted from sending, all but one request look well: what must not be.
  EXPECT_LT(measured.from_sending.QuantileNs(0.999), kMillisecondNs);
}

}  // namespace
}  // namespace sparse_ffn
