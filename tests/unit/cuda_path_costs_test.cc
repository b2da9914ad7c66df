#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/cuda/path_choice.h"
#include "kernels/cuda/path_costs.h"

namespace sparse_ffn::cuda {
namespace {

using testing::HasSubstr;

PathCosts Made(const std::vector<PathCost>& costs) {
  absl::StatusOr<PathCosts> made = PathCosts::Make(costs);
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? *made : PathCosts();
}

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

// Dense 100 at 1 to 8 tokens; sparse crosses it at density 0.5, fused at 0.8.
std::vector<PathCost> Crossing() {
  std::vector<PathCost> costs;
  for (size_t tokens : {1, 8}) {
    costs.push_back({FfnPath::kDense, tokens, 0, 100});
    costs.push_back({FfnPath::kSparse, tokens, 0, 50});
    costs.push_back({FfnPath::kSparse, tokens, 1, 150});
    costs.push_back({FfnPath::kFused, tokens, 0, 60});
    costs.push_back({FfnPath::kFused, tokens, 1, 110});
  }
  return costs;
}

TEST(ChooseByCostsTest, TakesTheFastestOfThoseAllowed) {
  const PathCosts costs = Made(Crossing());
  const auto choose = [&](Execution execution, float density, bool fused) {
    return ChoosePath(execution, 3, 4096, density, fused, costs);
  };
  EXPECT_EQ(choose(Execution::kAuto, 0.1F, true), FfnPath::kSparse);
  EXPECT_EQ(choose(Execution::kAuto, 0.3F, true), FfnPath::kFused);
  EXPECT_EQ(choose(Execution::kAuto, 0.9F, true), FfnPath::kDense);
  EXPECT_EQ(choose(Execution::kAuto, 0.45F, false), FfnPath::kSparse);
  EXPECT_EQ(choose(Execution::kAuto, 0.55F, false), FfnPath::kDense);
  EXPECT_EQ(choose(Execution::kSparse, 1, true), FfnPath::kFused);
  EXPECT_EQ(choose(Execution::kSparse, 1, false), FfnPath::kSparse);
  EXPECT_EQ(choose(Execution::kDense, 0, true), FfnPath::kDense);
}

TEST(ChooseByCostsTest, AnUnmeasuredPathIsTakenOnlyWhereNoOtherIsLeft) {
  const PathCosts dense = Made({{FfnPath::kDense, 1, 0, 1e9}});
  EXPECT_EQ(ChoosePath(Execution::kAuto, 1, 4096, 0, true, dense),
            FfnPath::kDense);
  EXPECT_EQ(ChoosePath(Execution::kSparse, 1, 4096, 0, false, dense),
            FfnPath::kSparse);
  const PathCosts sparse = Made({{FfnPath::kSparse, 1, 0, 1e9}});
  EXPECT_EQ(ChoosePath(Execution::kAuto, 1, 4096, 1, true, sparse),
            FfnPath::kSparse);
  EXPECT_EQ(ChoosePath(Execution::kSparse, 1, 4096, 1, true, sparse),
            FfnPath::kSparse);
  EXPECT_EQ(ChoosePath(Execution::kDense, 1, 4096, 1, true, sparse),
            FfnPath::kDense);
}

TEST(ChooseByCostsTest, TheRuleStandsForTokensThatWereNotMeasured) {
  const PathCosts costs = Made(Crossing());
  for (float density : {0.0F, 0.5F, 1.0F}) {
    for (size_t tokens : {9, 64}) {
      EXPECT_EQ(
          ChoosePath(Execution::kAuto, tokens, 4096, density, false, costs),
          ChoosePath(Execution::kAuto, tokens, 4096, density, false, {}));
    }
  }
}

TEST(SparseUpToTest, IsWhereTheDensePathTakesOver) {
  const PathCosts costs = Made(Crossing());
  EXPECT_NEAR(SparseUpTo(4, 4096, false, costs), 0.5F, 0.011F);
  EXPECT_NEAR(SparseUpTo(4, 4096, true, costs), 0.8F, 0.011F);
  EXPECT_FLOAT_EQ(SparseUpTo(8, 4096, false, {}), 0.8F) << "the rule";
  EXPECT_EQ(SparseUpTo(64, 4096, false, {}), -1);
  EXPECT_EQ(SparseUpTo(1, 4096, true, {}), 1);
}

// A table and what it should say, worked out from the entries each time.
class Model {
 public:
  void Add(const PathCost& cost) { costs_.push_back(cost); }
  const std::vector<PathCost>& costs() const { return costs_; }

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

  // Whether `chosen` is no slower than any that may be chosen; true where
  // nothing is known of them.
  bool Fastest(FfnPath chosen, Execution execution, size_t tokens,
               float density, bool fused) const {
    if (execution == Execution::kDense) return chosen == FfnPath::kDense;
    std::map<FfnPath, double> allowed;
    for (FfnPath path : {FfnPath::kSparse, FfnPath::kDense, FfnPath::kFused}) {
      const auto cost = Expected(path, tokens, density);
      if (path == FfnPath::kFused && !fused) continue;
      if (path == FfnPath::kDense && execution == Execution::kSparse) continue;
      if (cost) allowed[path] = *cost;
    }
    if (allowed.empty()) {
      return chosen ==
             ChoosePath(execution, tokens, 4096, density, fused, PathCosts());
    }
    return allowed.contains(chosen) &&
           std::all_of(allowed.begin(), allowed.end(), [&](const auto& other) {
             return allowed[chosen] <= other.second * (1 + 1e-9);
           });
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

  std::vector<PathCost> costs_;
};

Model RandomModel(std::mt19937* random) {
  const auto below = [random](int limit) {
    return std::uniform_int_distribution<int>(0, limit - 1)(*random);
  };
  Model model;
  std::map<std::tuple<FfnPath, size_t, double>, bool> seen;
  for (int i = below(30); i > 0; --i) {
    const auto path = static_cast<FfnPath>(below(kFfnPaths));
    const size_t tokens = 1 + static_cast<size_t>(below(20));
    const double density = path == FfnPath::kDense ? 0 : below(9) / 8.0;
    if (!seen.emplace(std::tuple(path, tokens, density), true).second) continue;
    model.Add({path, tokens, density, 1 + below(1000) / 7.0});
  }
  return model;
}

TEST(PathCostsTest, RandomTablesAgreeWithAModel) {
  const auto seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> any(0, 1);
  for (int i = 0; i < 300; ++i) {
    const Model model = RandomModel(&random);
    const PathCosts costs = Made(model.costs());
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
      for (Execution execution :
           {Execution::kAuto, Execution::kSparse, Execution::kDense}) {
        for (bool fused : {false, true}) {
          ASSERT_TRUE(model.Fastest(
              ChoosePath(execution, tokens, 4096, density, fused, costs),
              execution, tokens, density, fused))
              << tokens << " tokens, density " << density;
        }
      }
    }
  }
}

}  // namespace
}  // namespace sparse_ffn::cuda
