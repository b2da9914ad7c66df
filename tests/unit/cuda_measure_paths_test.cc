#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cuda/measure_paths.h"

namespace sparse_ffn::cuda {
namespace {

using testing::ElementsAre;

// A device whose scores have the density exp(-threshold / scale) of half, and
// whose times are a plain function of path, tokens and density.
struct FakeDevice {
  static double Microseconds(FfnPath path, size_t tokens, double density) {
    const auto count = static_cast<double>(tokens);
    if (path == FfnPath::kDense) return 80 + count / 4;
    return (path == FfnPath::kFused ? 25 : 35) + (40 + 2 * count) * density;
  }

  absl::StatusOr<TimedBatch> Time(size_t layer, size_t tokens, FfnPath path,
                                  float threshold) {
    if (batches == fail_at) return absl::InternalError("the device is gone");
    EXPECT_LT(layer, layers);
    EXPECT_FALSE(layer == last_layer && path != FfnPath::kDense)
        << "the weights are in the cache";
    last_layer = layer;
    layers_seen.insert(layer);
    const double density = most_density * std::exp(-threshold / scale);
    TimedBatch batch;
    batch.union_density = static_cast<float>(density);
    batch.microseconds = Microseconds(path, tokens, density);
    // Now and then a batch is disturbed.
    if (++batches % 5 == 0) batch.microseconds *= 3;
    spent_us += batch.microseconds;
    return batch;
  }

  TimeBatch time() {
    return [this](size_t layer, size_t tokens, FfnPath path, float threshold) {
      return Time(layer, tokens, path, threshold);
    };
  }

  size_t layers = 5;
  double most_density = 0.5;
  double scale = 1e-3;
  int fail_at = -1;
  int batches = 0;
  double spent_us = 0;
  size_t last_layer = 99;
  std::set<size_t> layers_seen;
};

MeasurePlan PlanOf(const FakeDevice& device, size_t max_batch_tokens) {
  MeasurePlan plan;
  plan.layers = device.layers;
  plan.hidden_size = 4096;
  plan.max_batch_tokens = max_batch_tokens;
  plan.fused = [](size_t tokens) { return tokens <= 4; };
  plan.seconds = 10;
  return plan;
}

std::vector<size_t> TokensOf(const std::vector<PathCost>& costs, FfnPath path) {
  std::vector<size_t> tokens;
  for (const PathCost& cost : costs) {
    if (cost.path == path && (tokens.empty() || tokens.back() != cost.tokens)) {
      tokens.push_back(cost.tokens);
    }
  }
  return tokens;
}

TEST(TokensToMeasureTest, ArePowersOfTwoTheLargestAndWhereFormsEnd) {
  EXPECT_THAT(TokensToMeasure(1, 4096), ElementsAre(1));
  EXPECT_THAT(TokensToMeasure(7, 4096), ElementsAre(1, 2, 3, 4, 7));
  EXPECT_THAT(TokensToMeasure(32, 4096), ElementsAre(1, 2, 3, 4, 8, 16, 32));
  EXPECT_THAT(TokensToMeasure(33, 4096),
              ElementsAre(1, 2, 3, 4, 8, 16, 32, 33));
  EXPECT_THAT(TokensToMeasure(100, 4096),
              ElementsAre(1, 2, 3, 4, 8, 16, 32, 33, 64, 100));
  EXPECT_THAT(TokensToMeasure(64, 4097), ElementsAre(1, 2, 3, 4, 8, 16, 32, 64))
      << "no batch form";
}

TEST(MeasurePathsTest, MeasuresEachPathAtThreeDensities) {
  FakeDevice device;
  int progress = 0;
  const auto costs =
      MeasurePaths(PlanOf(device, 8), device.time(), [&] { ++progress; });
  ASSERT_TRUE(costs.ok()) << costs.status();
  EXPECT_EQ(progress, 5);
  EXPECT_THAT(TokensOf(*costs, FfnPath::kSparse), ElementsAre(1, 2, 3, 4, 8));
  EXPECT_THAT(TokensOf(*costs, FfnPath::kDense), ElementsAre(1, 2, 3, 4, 8));
  EXPECT_THAT(TokensOf(*costs, FfnPath::kFused), ElementsAre(1, 2, 3, 4));
  std::vector<double> densities;
  for (const PathCost& cost : *costs) {
    EXPECT_NEAR(
        cost.microseconds,
        FakeDevice::Microseconds(cost.path, cost.tokens, cost.union_density),
        1e-3)
        << "the median is not disturbed";
    if (cost.path == FfnPath::kDense) {
      EXPECT_EQ(cost.union_density, 0);
    }
    if (cost.path == FfnPath::kSparse && cost.tokens == 2) {
      densities.push_back(cost.union_density);
    }
  }
  ASSERT_EQ(densities.size(), 3);
  EXPECT_EQ(densities[0], 0);
  EXPECT_NEAR(densities[1], 0.25, 0.01);
  EXPECT_EQ(densities[2], 0.5);
  EXPECT_EQ(device.layers_seen.size(), device.layers)
      << "goes from layer to layer";
}

TEST(MeasurePathsTest, LeavesOutTheStepsOfBatchesThatRunInPasses) {
  FakeDevice device;
  MeasurePlan plan = PlanOf(device, 64);
  plan.fused = [](size_t tokens) { return tokens > 8; };
  const auto costs = MeasurePaths(plan, device.time(), [] {});
  ASSERT_TRUE(costs.ok()) << costs.status();
  EXPECT_THAT(TokensOf(*costs, FfnPath::kSparse),
              ElementsAre(1, 2, 3, 4, 8, 16, 32));
  EXPECT_THAT(TokensOf(*costs, FfnPath::kFused), ElementsAre(16, 32, 33, 64));
  EXPECT_THAT(TokensOf(*costs, FfnPath::kDense),
              ElementsAre(1, 2, 3, 4, 8, 16, 32, 33, 64));
}

TEST(MeasurePathsTest, FindsTheThresholdAtAnyScaleOfTheScores) {
  for (double scale : {1e-20, 1e-3, 1.0, 1e20}) {
    FakeDevice device;
    device.scale = scale;
    const auto costs = MeasurePaths(PlanOf(device, 1), device.time(), [] {});
    ASSERT_TRUE(costs.ok()) << costs.status();
    ASSERT_EQ(costs->size(), 7) << scale;
    EXPECT_NEAR((*costs)[2].union_density, 0.25, 0.01) << scale;
  }
}

TEST(MeasurePathsTest, StopsWhenTheTimeIsUpWithWhatIsWhole) {
  FakeDevice unlimited;
  const auto all =
      MeasurePaths(PlanOf(unlimited, 256), unlimited.time(), [] {});
  ASSERT_TRUE(all.ok()) << all.status();
  for (double share : {0.01, 0.1, 0.2, 0.3, 0.5}) {
    FakeDevice device;
    MeasurePlan plan = PlanOf(device, 256);
    plan.seconds = share * unlimited.spent_us / 1e6;
    const auto costs = MeasurePaths(plan, device.time(), [] {});
    ASSERT_TRUE(costs.ok()) << costs.status();
    // At most one search for a threshold, on the dense path, is not cut.
    EXPECT_LE(device.spent_us, plan.seconds * 1e6 + 25 * 3 * 150);
    const auto tokens = TokensOf(*costs, FfnPath::kSparse);
    EXPECT_EQ(tokens, TokensOf(*costs, FfnPath::kDense));
    EXPECT_EQ(costs->size(),
              tokens.size() * 4 + std::min<size_t>(tokens.size(), 4) * 3);
    EXPECT_LE(costs->size(), all->size());
  }
}

TEST(MeasurePathsTest, HiddenStatesThatReachTooFewNeuronsTellNothing) {
  FakeDevice device;
  device.most_density = 0.05;
  const auto costs = MeasurePaths(PlanOf(device, 8), device.time(), [] {});
  ASSERT_TRUE(costs.ok()) << costs.status();
  EXPECT_TRUE(costs->empty());
}

TEST(MeasurePathsTest, DensitiesThatTheThresholdCannotPartCountOnce) {
  FakeDevice device;
  device.scale = 1e300;  // All scores are the same but for infinity.
  const auto costs = MeasurePaths(PlanOf(device, 1), device.time(), [] {});
  ASSERT_TRUE(costs.ok()) << costs.status();
  EXPECT_EQ(TokensOf(*costs, FfnPath::kSparse), std::vector<size_t>{1});
  EXPECT_EQ(std::count_if(costs->begin(), costs->end(),
                          [](const PathCost& cost) {
                            return cost.path == FfnPath::kSparse;
                          }),
            2);
}

TEST(MeasurePathsTest, ErrorsComeThrough) {
  for (int fail_at : {0, 3, 25, 60}) {
    FakeDevice device;
    device.fail_at = fail_at;
    EXPECT_EQ(MeasurePaths(PlanOf(device, 8), device.time(), [] {}).status(),
              absl::InternalError("the device is gone"));
  }
}

}  // namespace
}  // namespace sparse_ffn::cuda
