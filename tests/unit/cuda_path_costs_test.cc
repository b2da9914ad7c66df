#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/path_costs.h"
#include "tests/unit/made_path_costs.h"

namespace sparse_ffn::cuda {
namespace {

using testing::HasSubstr;

TEST(PathCostsTest, NothingIsExpectedOfNothing) {
  EXPECT_EQ(PathCosts().Expected(FfnPath::kSparse, 1, 0.5F), std::nullopt);
}

TEST(PathCostsTest, IsLinearBetweenDensities) {
  const PathCosts costs = Made({{FfnPath::kSparse, 1, 0.5F, 30},
                                {FfnPath::kSparse, 1, 0.0F, 10},
                                {FfnPath::kSparse, 1, 0.25F, 14}});
  EXPECT_EQ(costs.Expected(FfnPath::kSparse, 1, 0), 10);
  EXPECT_EQ(costs.Expected(FfnPath::kSparse, 1, 0.125F), 12);
  EXPECT_EQ(costs.Expected(FfnPath::kSparse, 1, 0.25F), 14);
  EXPECT_EQ(costs.Expected(FfnPath::kSparse, 1, 0.375F), 22);
  EXPECT_EQ(costs.Expected(FfnPath::kSparse, 1, 0.5F), 30);
  EXPECT_EQ(costs.Expected(FfnPath::kSparse, 1, 1), 50) << "first to last";
}

TEST(PathCostsTest, DoesNotFallBeyondTheLastDensity) {
  const PathCosts costs =
      Made({{FfnPath::kSparse, 1, 0.25F, 30}, {FfnPath::kSparse, 1, 0.5F, 29}});
  EXPECT_EQ(costs.Expected(FfnPath::kSparse, 1, 1), 29);
  EXPECT_EQ(costs.Expected(FfnPath::kSparse, 1, 0), 30)
      << "nor goes on before the first";
}

TEST(PathCostsTest, OnePointStandsForEveryDensity) {
  const PathCosts costs = Made({{FfnPath::kDense, 1, 0, 77}});
  for (float density : {0.0F, 0.3F, 1.0F}) {
    EXPECT_EQ(costs.Expected(FfnPath::kDense, 1, density), 77);
  }
}

TEST(PathCostsTest, IsLinearBetweenTokensAndNothingBeyond) {
  const PathCosts costs =
      Made({{FfnPath::kDense, 4, 0, 10}, {FfnPath::kDense, 8, 0, 18}});
  EXPECT_EQ(costs.Expected(FfnPath::kDense, 3, 0), std::nullopt);
  EXPECT_EQ(costs.Expected(FfnPath::kDense, 4, 0), 10);
  EXPECT_EQ(costs.Expected(FfnPath::kDense, 5, 0), 12);
  EXPECT_EQ(costs.Expected(FfnPath::kDense, 8, 0), 18);
  EXPECT_EQ(costs.Expected(FfnPath::kDense, 9, 0), std::nullopt);
  EXPECT_EQ(costs.Expected(FfnPath::kSparse, 4, 0), std::nullopt);
}

TEST(PathCostsTest, BadEntriesAreRefusedByName) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  struct Bad {
    PathCost cost;
    const char* message;
  };
  const Bad all[] = {
      {{FfnPath::kSparse, 1, 0.5F, 0}, "microseconds: expected a finite"},
      {{FfnPath::kSparse, 1, 0.5F, -3}, "found -3"},
      {{FfnPath::kSparse, 1, 0.5F, kNan}, "found nan"},
      {{FfnPath::kSparse, 1, 0.5F, kInfinity}, "found inf"},
      {{FfnPath::kSparse, 1, kNan, 1}, "union_density: expected a number"},
      {{FfnPath::kSparse, 1, -0.5F, 1}, "found -0.5"},
      {{FfnPath::kFused, 1, 1.5F, 1}, "cost 1 (fused): union_density"},
      {{FfnPath::kDense, 1, 0.5F, 1}, "union_density: expected 0, found 0.5"},
      {{FfnPath::kSparse, 0, 0.5F, 1}, "tokens: expected an integer from 1"},
      {{FfnPath::kSparse, 8193, 0.5F, 1}, "to 8192, found 8193"},
      {{FfnPath::kSparse, 2, 0.25F, 1}, "0.25 once for 2 tokens"}};
  for (const Bad& bad : all) {
    const absl::StatusOr<PathCosts> made =
        PathCosts::Make({{FfnPath::kSparse, 2, 0.25F, 9}, bad.cost});
    EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(made.status().message()), HasSubstr(bad.message));
    EXPECT_THAT(std::string(made.status().message()), HasSubstr("cost 1 ("));
  }
}

// A table and what it should say, worked out from the entries each time.
class Model {
 public:
  explicit Model(std::vector<PathCost> costs) : costs_(std::move(costs)) {}

  std::optional<double> Expected(FfnPath path, size_t tokens,
                                 double density) const {
    size_t below = 0;
    size_t above = std::numeric_limits<size_t>::max();
    for (const PathCost& cost : costs_) {
      if (cost.path != path) continue;
      if (cost.tokens <= tokens) below = std::max(below, cost.tokens);
      if (cost.tokens >= tokens) above = std::min(above, cost.tokens);
    }
    if (below == 0 || above > kMaxBatchTokens) return std::nullopt;
    const double less = At(path, below, density);
    const double more = At(path, above, density);
    if (below == above) return less;
    const auto weight = static_cast<double>(above - tokens) /
                        static_cast<double>(above - below);
    return weight * less + (1 - weight) * more;
  }

 private:
  double At(FfnPath path, size_t tokens, double density) const {
    std::map<double, double> line;
    for (const PathCost& cost : costs_) {
      if (cost.path == path && cost.tokens == tokens) {
        line[cost.union_density] = cost.microseconds;
      }
    }
    const auto [d0, us0] = *line.begin();
    const auto [d1, us1] = *line.rbegin();
    if (density <= d0) return us0;
    if (density >= d1) {
      if (d0 == d1) return us1;
      return us1 + std::max(0.0, (us1 - us0) / (d1 - d0) * (density - d1));
    }
    auto next = line.begin();
    while (next->first < density) ++next;
    const auto [to, us_to] = *next;
    const auto [from, us_from] = *--next;
    return us_from + (us_to - us_from) * (density - from) / (to - from);
  }

  const std::vector<PathCost> costs_;
};

TEST(PathCostsTest, RandomTablesAgreeWithAModel) {
  const auto seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> any(0, 1);
  for (int i = 0; i < 300; ++i) {
    const std::vector<PathCost> entries = RandomCosts(&random);
    const Model model(entries);
    const PathCosts costs = Made(entries);
    for (size_t tokens = 1; tokens <= 21; ++tokens) {
      const float density = any(random);
      for (FfnPath path :
           {FfnPath::kSparse, FfnPath::kDense, FfnPath::kFused}) {
        const auto expected = model.Expected(path, tokens, density);
        const auto got = costs.Expected(path, tokens, density);
        ASSERT_EQ(got.has_value(), expected.has_value());
        if (!got) continue;
        ASSERT_NEAR(*got, *expected, 1e-9 * *expected);
      }
    }
  }
}

}  // namespace
}  // namespace sparse_ffn::cuda
