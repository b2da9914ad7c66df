#include "client/cli/oracle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace sparse_ffn {
namespace {

using testing::ElementsAre;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

ConstMatrix View(const std::vector<float>& values, size_t rows) {
  return {values.data(), rows, values.size() / rows, DataType::kFloat32};
}

// Three neurons, hidden size 2.
struct SmallLayer {
  std::vector<float> gate = {1, 0, 0, 1, -1, -1};
  std::vector<float> up = {2, 1, 1, 3, 4, 4};
  std::vector<float> down = {1, 10, 100, 2, 20, 200};  // [hidden, 3]

  OracleResult Run(const std::vector<float>& x, const std::string& activation,
                   double threshold) const {
    return RunOracle({View(gate, 3), View(up, 3), View(down, 2), activation,
                      threshold},
                     View(x, x.size() / 2), 2)
        .value();
  }
};

TEST(OracleTest, ComputesByHand) {
  // Scores 3, -2, -1; only neuron 0: h = 3 * (6 - 2) = 12.
  // Scores 1, 2, -3; h = 1 * (2 + 2) = 4 and 2 * (1 + 6) = 14.
  const OracleResult result = SmallLayer().Run({3, -2, 1, 2}, "relu", 0);
  EXPECT_EQ(result.tokens, 2U);
  EXPECT_EQ(result.hidden_size, 2U);
  EXPECT_THAT(result.output, ElementsAre(12, 24, 144, 288));
  EXPECT_THAT(result.active_neurons, ElementsAre(1, 2));
  EXPECT_THAT(result.borderline_neurons, ElementsAre(0, 0));
  EXPECT_THAT(result.active, ElementsAre(1, 0, 0, 1, 1, 0));
}

TEST(OracleTest, FatReluIsActiveAtItsThresholdAndNotBelow) {
  const SmallLayer layer;
  EXPECT_THAT(layer.Run({2, 3}, "fatrelu", 2).active, ElementsAre(1, 1, 0));
  EXPECT_THAT(layer.Run({2, 3}, "fatrelu", 2.5).active, ElementsAre(0, 1, 0));
  EXPECT_THAT(layer.Run({2, 3}, "fatrelu", 4).output, ElementsAre(0, 0));
  // With threshold 0 it is relu: a score of 0 is inactive.
  EXPECT_THAT(layer.Run({0, 3}, "fatrelu", 0).active, ElementsAre(0, 1, 0));
}

TEST(OracleTest, DReluClampsTheUpBranch) {
  SmallLayer layer;
  layer.up = {-2, 1, 1, 3, 4, 4};
  const OracleResult relu = layer.Run({1, 1}, "relu", 0);
  EXPECT_THAT(relu.output, ElementsAre(-1 + 40, -2 + 80));
  const OracleResult drelu = layer.Run({1, 1}, "drelu", 0);
  EXPECT_THAT(drelu.output, ElementsAre(40, 80));
  EXPECT_THAT(drelu.active_neurons, ElementsAre(2));
}

TEST(OracleTest, NaNScoreIsActiveAndStaysWithItsToken) {
  const OracleResult result = SmallLayer().Run({kNaN, 1, 3, -2}, "relu", 0);
  EXPECT_THAT(result.active_neurons, ElementsAre(3, 1));
  EXPECT_TRUE(std::isnan(result.output[0]));
  EXPECT_TRUE(std::isnan(result.output[1]));
  EXPECT_THAT(
      std::vector<double>(result.output.begin() + 2, result.output.end()),
      ElementsAre(12, 24));
}

TEST(OracleTest, SkipsInactiveNeurons) {
  SmallLayer layer;
  layer.up[4] = kNaN;
  layer.down[2] = kInfinity;
  layer.down[5] = kNaN;
  EXPECT_THAT(layer.Run({1, 2}, "relu", 0).output, ElementsAre(144, 288));
}

TEST(OracleTest, ReadsHalfTypes) {
  for (DataType dtype : {DataType::kFloat16, DataType::kBFloat16}) {
    const SmallLayer layer;
    std::vector<uint16_t> bits[4];
    const std::vector<float> x = {1, 2};
    const std::vector<float>* floats[] = {&layer.gate, &layer.up, &layer.down,
                                          &x};
    ConstMatrix views[4];
    for (size_t i = 0; i < 4; ++i) {
      const size_t rows = i == 3 ? 1 : i == 2 ? 2 : 3;
      bits[i].resize(floats[i]->size());
      const Matrix view = {bits[i].data(), rows, bits[i].size() / rows, dtype};
      Convert(View(*floats[i], rows), view);
      views[i] = view;
    }
    const auto result =
        RunOracle({views[0], views[1], views[2], "relu", 0}, views[3], 1);
    EXPECT_THAT(result.value().output, ElementsAre(144, 288));
  }
}

TEST(OracleTest, RefusesWhatDoesNotFit) {
  const std::vector<float> v(6, 1);
  const OracleLayer good = {View(v, 3), View(v, 3), View(v, 2), "relu", 0};
  const std::vector<float> x = {1, 2};
  EXPECT_TRUE(RunOracle(good, View(x, 1), 1).ok());
  OracleLayer bad = good;
  bad.activation = "silu";
  EXPECT_THAT(std::string(RunOracle(bad, View(x, 1), 1).status().message()),
              testing::HasSubstr("silu"));
  bad = good;
  bad.down_proj = View(v, 3);
  EXPECT_FALSE(RunOracle(bad, View(x, 1), 1).ok());
  bad = good;
  bad.up_proj.dtype = DataType::kBFloat16;
  EXPECT_FALSE(RunOracle(bad, View(x, 1), 1).ok());
  EXPECT_FALSE(RunOracle(good, View(v, 2), 1).ok());
}

// A random layer, its oracle, and the same sums in float32 as a server might
// compute them.
class CompareTest : public testing::Test {
 protected:
  static constexpr size_t kTokens = 3;
  static constexpr size_t kHidden = 96;
  static constexpr size_t kNeurons = 200;

  CompareTest() : seed_(std::random_device()()), random_(seed_) {
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed_));
    for (auto* values : {&gate_, &up_, &down_}) {
      *values = Random(kNeurons * kHidden, 0.1F);
    }
    x_ = Random(kTokens * kHidden, 1);
    expected_ = RunOracle({View(gate_, kNeurons), View(up_, kNeurons),
                           View(down_, kHidden), "fatrelu", kThreshold},
                          View(x_, kTokens), 2)
                    .value();
    served_ = Served([](float sum) { return sum; }, kNeurons);
  }

  std::vector<float> Random(size_t count, float scale) {
    std::normal_distribution<float> normal(0, scale);
    std::vector<float> values(count);
    for (float& value : values) value = normal(random_);
    return values;
  }

  float Dot(const std::vector<float>& rows, size_t j, size_t t) const {
    float sum = 0;
    for (size_t i = 0; i < kHidden; ++i) {
      sum += rows[j * kHidden + i] * x_[t * kHidden + i];
    }
    return sum;
  }

  // float32 sums; step 3 rounds its sum with `round` after each term and goes
  // without neuron `dropped`.
  std::vector<float> Served(const std::function<float(float)>& round,
                            size_t dropped) const {
    std::vector<float> output(kTokens * kHidden);
    for (size_t t = 0; t < kTokens; ++t) {
      for (size_t j = 0; j < kNeurons; ++j) {
        const float s = Dot(gate_, j, t);
        if (s < static_cast<float>(kThreshold) || j == dropped) continue;
        const float h = s * Dot(up_, j, t);
        for (size_t c = 0; c < kHidden; ++c) {
          float& sum = output[t * kHidden + c];
          sum = round(sum + h * down_[c * kNeurons + j]);
        }
      }
    }
    return output;
  }

  Comparison CompareServed(GatedAs gated = GatedAs::kFloat32) const {
    return Compare(expected_, 0, View(served_, kTokens), gated);
  }

  static float RoundToBFloat16(float value) {
    uint16_t bits = 0;
    Convert({&value, 1, 1, DataType::kFloat32},
            {&bits, 1, 1, DataType::kBFloat16});
    Convert({&bits, 1, 1, DataType::kBFloat16},
            {&value, 1, 1, DataType::kFloat32});
    return value;
  }

  static constexpr double kThreshold = 0.4;
  const uint64_t seed_;
  std::mt19937_64 random_;
  std::vector<float> gate_, up_, down_, x_;
  OracleResult expected_;
  std::vector<float> served_;
};

TEST_F(CompareTest, AcceptsFloat32Sums) {
  const Comparison got = CompareServed();
  EXPECT_TRUE(got.passed) << got.worst_ratio;
  EXPECT_EQ(got.misses, 0U);
  EXPECT_GT(got.worst_error, 0);
  EXPECT_LT(got.worst_ratio, 1);
}

TEST_F(CompareTest, DrawsTheLineAtTheTolerance) {
  const size_t at = kHidden + 17;
  const double rounding = std::ldexp(std::abs(expected_.output[at]), -24);
  const double tolerance = expected_.tolerance[at] + rounding;
  for (double sign : {-1.0, 1.0}) {
    served_[at] =
        static_cast<float>(expected_.output[at] + sign * 0.8 * tolerance);
    EXPECT_TRUE(CompareServed().passed);
    served_[at] =
        static_cast<float>(expected_.output[at] + sign * 1.2 * tolerance);
    const Comparison got = CompareServed();
    EXPECT_FALSE(got.passed);
    EXPECT_EQ(got.misses, 1U);
    EXPECT_EQ(got.worst_token, 1U);
    EXPECT_EQ(got.worst_column, 17U);
    EXPECT_NEAR(got.worst_ratio, 1.2, 0.2);
    EXPECT_NEAR(got.worst_error, 1.2 * tolerance, 0.2 * tolerance);
  }
}

TEST_F(CompareTest, RejectsAnyDroppedNeuron) {
  size_t dropped = 0;
  for (size_t j = 0; j < kNeurons; j += 7) {
    if (expected_.active[j] == 0) continue;
    served_ = Served([](float sum) { return sum; }, j);
    EXPECT_FALSE(CompareServed().passed) << j;
    ++dropped;
  }
  EXPECT_GT(dropped, 0U);
}

TEST_F(CompareTest, RejectsSwappedRows) {
  std::swap_ranges(served_.begin(), served_.begin() + kHidden,
                   served_.begin() + kHidden);
  EXPECT_FALSE(CompareServed().passed);
}

TEST_F(CompareTest, RejectsColumnsOffByOne) {
  std::rotate(served_.begin(), served_.begin() + 1, served_.end());
  EXPECT_FALSE(CompareServed().passed);
}

TEST_F(CompareTest, RejectsSumsInBFloat16) {
  served_ = Served(RoundToBFloat16, kNeurons);
  EXPECT_FALSE(CompareServed().passed);
}

TEST_F(CompareTest, RejectsZeros) {
  std::fill(served_.begin(), served_.end(), 0.0F);
  EXPECT_FALSE(CompareServed().passed);
}

TEST_F(CompareTest, RejectsWhatIsNotFinite) {
  for (float bad : {kNaN, kInfinity, -kInfinity}) {
    std::vector<float> good = served_;
    served_[5] = bad;
    const Comparison got = CompareServed();
    EXPECT_FALSE(got.passed);
    EXPECT_EQ(got.misses, 1U);
    EXPECT_EQ(got.worst_column, 5U);
    EXPECT_EQ(got.worst_ratio, kInfinity);
    served_ = good;
  }
}

TEST_F(CompareTest, WantsNaNWhereItIsExpected) {
  expected_.output[5] = kNaN;
  expected_.tolerance[5] = kNaN;
  EXPECT_FALSE(CompareServed().passed);
  served_[5] = kInfinity;
  EXPECT_FALSE(CompareServed().passed);
  served_[5] = kNaN;
  EXPECT_TRUE(CompareServed().passed);
}

TEST_F(CompareTest, AllowsForTheTypeOfTheAnswerOnly) {
  for (DataType dtype : {DataType::kFloat16, DataType::kBFloat16}) {
    std::vector<uint16_t> bits(served_.size());
    const Matrix narrow = {bits.data(), kTokens, kHidden, dtype};
    Convert(View(served_, kTokens), narrow);
    EXPECT_TRUE(Compare(expected_, 0, narrow, GatedAs::kFloat32).passed);
    std::vector<float> widened(served_.size());
    Convert(narrow, {widened.data(), kTokens, kHidden, DataType::kFloat32});
    EXPECT_FALSE(
        Compare(expected_, 0, View(widened, kTokens), GatedAs::kFloat32)
            .passed);
    // Two units in the last place of the largest element.
    const auto largest = std::max_element(
        served_.begin(), served_.end(),
        [](float a, float b) { return std::abs(a) < std::abs(b); });
    bits[static_cast<size_t>(largest - served_.begin())] ^= 2;
    EXPECT_FALSE(Compare(expected_, 0, narrow, GatedAs::kFloat32).passed);
  }
}

TEST_F(CompareTest, StartsAtTheTokenAsked) {
  const std::vector<float> last(served_.end() - kHidden, served_.end());
  EXPECT_TRUE(Compare(expected_, 2, View(last, 1), GatedAs::kFloat32).passed);
  EXPECT_FALSE(Compare(expected_, 1, View(last, 1), GatedAs::kFloat32).passed);
}

TEST_F(CompareTest, AllowsForRoundedProductsOnRequestOnly) {
  // Weights that bfloat16 holds, so that its rounding of h is the one asked.
  std::vector<uint16_t> bits[4];
  const std::pair<std::vector<float>*, size_t> all[] = {
      {&gate_, kNeurons}, {&up_, kNeurons}, {&down_, kHidden}, {&x_, kTokens}};
  ConstMatrix views[4];
  for (size_t i = 0; i < 4; ++i) {
    auto [values, rows] = all[i];
    for (float& value : *values) value = RoundToBFloat16(value);
    bits[i].resize(values->size());
    const Matrix view = {bits[i].data(), rows, values->size() / rows,
                         DataType::kBFloat16};
    Convert(View(*values, rows), view);
    views[i] = view;
  }
  expected_ = RunOracle({views[0], views[1], views[2], "fatrelu", kThreshold},
                        views[3], 2)
                  .value();
  const auto serve = [this](const std::function<float(float)>& round) {
    served_.assign(served_.size(), 0);
    for (size_t t = 0; t < kTokens; ++t) {
      for (size_t j = 0; j < kNeurons; ++j) {
        if (expected_.active[t * kNeurons + j] == 0) continue;
        const float h = round(Dot(gate_, j, t) * Dot(up_, j, t));
        for (size_t c = 0; c < kHidden; ++c) {
          served_[t * kHidden + c] += h * down_[c * kNeurons + j];
        }
      }
    }
  };
  serve(RoundToBFloat16);
  EXPECT_FALSE(CompareServed(GatedAs::kFloat32).passed);
  EXPECT_FALSE(CompareServed(GatedAs::kTwoOfWeightsType).passed);
  EXPECT_TRUE(CompareServed(GatedAs::kOneOfWeightsType).passed);
  serve([](float h) {
    const float high = RoundToBFloat16(h);
    return high + RoundToBFloat16(h - high);
  });
  EXPECT_TRUE(CompareServed(GatedAs::kTwoOfWeightsType).passed);
}

TEST(BorderlineTest, MayGoEitherWayAndIsCounted) {
  // Scores about 0.5 + 0.3 - 0.3, which float32 sums get right to 1e-7 only.
  const std::vector<float> gate = {0.5F, 0.3F, -0.3F, 2, 0, 0};
  const std::vector<float> up(6, 1);
  const std::vector<float> down = {3, 5, 4, 6, 1, 1};
  const std::vector<float> x = {1, 1, 1};
  const OracleResult result = RunOracle({View(gate, 2), View(up, 2),
                                         View(down, 3), "fatrelu", 0.50000001},
                                        View(x, 1), 1)
                                  .value();
  EXPECT_THAT(result.borderline_neurons, ElementsAre(1));
  EXPECT_THAT(result.active, ElementsAre(0, 1));
  const std::vector<float> without = {30, 36, 6};
  const std::vector<float> with = {34.5F, 42, 7.5F};
  const std::vector<float> beyond = {35, 42, 7.5F};
  EXPECT_TRUE(Compare(result, 0, View(without, 1), GatedAs::kFloat32).passed);
  EXPECT_TRUE(Compare(result, 0, View(with, 1), GatedAs::kFloat32).passed);
  EXPECT_FALSE(Compare(result, 0, View(beyond, 1), GatedAs::kFloat32).passed);
  EXPECT_TRUE(ActiveCountAgrees(result, 0, 1));
  EXPECT_TRUE(ActiveCountAgrees(result, 0, 2));
  EXPECT_FALSE(ActiveCountAgrees(result, 0, 3));
}

}  // namespace
}  // namespace sparse_ffn
