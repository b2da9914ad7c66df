#include <gtest/gtest.h>

#include <cstddef>
#include <optional>
#include <random>
#include <vector>

#include "kernels/cuda/path_choice.h"
#include "tests/unit/made_path_costs.h"

namespace sparse_ffn::cuda {
namespace {

TEST(CudaPathChoiceTest, ForcedExecutionWins) {
  EXPECT_EQ(ChoosePath(Execution::kSparse, 1024, 4096, 1.0F, false, {}),
            FfnPath::kSparse);
  EXPECT_EQ(ChoosePath(Execution::kDense, 1, 4096, 0.0F, false, {}),
            FfnPath::kDense);
}

TEST(CudaPathChoiceTest, OneTokenOfASparseModelIsSparse) {
  EXPECT_EQ(ChoosePath(Execution::kAuto, 1, 4096, 0.107F, false, {}),
            FfnPath::kSparse);
  EXPECT_EQ(ChoosePath(Execution::kAuto, 1, 4096, 0.33F, false, {}),
            FfnPath::kSparse);
}

TEST(CudaPathChoiceTest, LargeBatchesAreDenseFromTheFirst) {
  EXPECT_EQ(ChoosePath(Execution::kAuto, 64, 4096, 0.0F, false, {}),
            FfnPath::kDense);
}

TEST(CudaPathChoiceTest, UnalignedRowsHaveNoBatchForm) {
  EXPECT_TRUE(UsesBatchForm(8, 4096));
  EXPECT_FALSE(UsesBatchForm(8, 4097));
  EXPECT_EQ(ChoosePath(Execution::kAuto, 8, 4096, 0.5F, false, {}),
            FfnPath::kSparse);
  EXPECT_EQ(ChoosePath(Execution::kAuto, 8, 4097, 0.5F, false, {}),
            FfnPath::kDense);
}

TEST(CudaPathChoiceTest, FusedWhereThatIsFast) {
  EXPECT_TRUE(UsesFused(SparseForm::kAuto, true, true));
  EXPECT_FALSE(UsesFused(SparseForm::kAuto, true, false));
  EXPECT_FALSE(UsesFused(SparseForm::kAuto, false, true));
}

TEST(CudaPathChoiceTest, ForcedFormWins) {
  for (bool fast : {false, true}) {
    EXPECT_FALSE(UsesFused(SparseForm::kSteps, true, fast));
    EXPECT_TRUE(UsesFused(SparseForm::kFused, true, fast));
    EXPECT_TRUE(UsesFused(SparseForm::kFusedPortable, true, fast));
    EXPECT_FALSE(UsesFused(SparseForm::kFused, false, fast));
  }
}

TEST(CudaPathChoiceTest, FusedIsTakenAtAnyDensityUnlessDenseIsForced) {
  for (size_t tokens : {1, 2, 3, 16}) {
    for (float density : {0.0F, 0.5F, 1.0F}) {
      EXPECT_EQ(ChoosePath(Execution::kAuto, tokens, 4096, density, true, {}),
                FfnPath::kFused);
      EXPECT_EQ(ChoosePath(Execution::kSparse, tokens, 4096, density, true, {}),
                FfnPath::kFused);
      EXPECT_EQ(ChoosePath(Execution::kDense, tokens, 4096, density, true, {}),
                FfnPath::kDense);
    }
  }
}

TEST(CudaPathChoiceTest, ALargeFullBatchIsDenseAndNotFused) {
  for (size_t tokens : {17, 32}) {
    EXPECT_EQ(ChoosePath(Execution::kAuto, tokens, 4096, 0.8F, true, {}),
              FfnPath::kFused);
    EXPECT_EQ(ChoosePath(Execution::kAuto, tokens, 4096, 1.0F, true, {}),
              FfnPath::kDense);
    EXPECT_EQ(ChoosePath(Execution::kSparse, tokens, 4096, 1.0F, true, {}),
              FfnPath::kFused);
  }
}

TEST(CudaPathChoiceTest, PassesRunWhereDenseMayNot) {
  EXPECT_EQ(ChoosePath(Execution::kSparse, 33, 4096, 1, true, {}),
            FfnPath::kFused);
  EXPECT_EQ(ChoosePath(Execution::kAuto, 33, 4096, 0, true, {}),
            FfnPath::kDense);
}

TEST(CudaPathChoiceTest, FullDensityIsDense) {
  for (size_t tokens : {1, 2, 3, 4, 5, 64, 1024}) {
    EXPECT_EQ(ChoosePath(Execution::kAuto, tokens, 4096, 1.0F, false, {}),
              FfnPath::kDense)
        << tokens;
  }
}

TEST(CudaPathChoiceTest, NeverReturnsToSparseAsDensityGrows) {
  for (size_t tokens : {1, 2, 4, 8, 16}) {
    bool dense = false;
    for (float density = 0; density <= 1; density += 1.0F / 64) {
      const bool now = ChoosePath(Execution::kAuto, tokens, 4096, density,
                                  false, {}) == FfnPath::kDense;
      EXPECT_TRUE(now || !dense) << tokens << " tokens, density " << density;
      dense = now;
    }
    EXPECT_TRUE(dense);
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

TEST(ChooseByCostsTest, TheLeastTimeDecides) {
  constexpr double kSparse = 100;
  for (double dense : {0.99 * kSparse, 1.01 * kSparse}) {
    const PathCosts costs = Made(
        {{FfnPath::kDense, 8, 0, dense}, {FfnPath::kSparse, 8, 0, kSparse}});
    EXPECT_EQ(ChoosePath(Execution::kAuto, 8, 4096, 0, false, costs),
              dense < kSparse ? FfnPath::kDense : FfnPath::kSparse);
  }
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
  EXPECT_EQ(SparseUpTo(33, 4096, true, {}), -1) << "in passes";
}

// Whether `chosen` is no slower than any that may be chosen; where no time is
// known of those, whether it is what the rule says.
bool Fastest(FfnPath chosen, Execution execution, size_t tokens, float density,
             bool fused, const PathCosts& costs) {
  std::optional<double> least;
  for (FfnPath path : {FfnPath::kSparse, FfnPath::kDense, FfnPath::kFused}) {
    if (path == FfnPath::kFused && !fused) continue;
    if (path == FfnPath::kDense && execution == Execution::kSparse) continue;
    const std::optional<double> cost = costs.Expected(path, tokens, density);
    if (cost && (!least || *cost < *least)) least = cost;
  }
  if (!least) {
    return chosen == ChoosePath(execution, tokens, 4096, density, fused, {});
  }
  return costs.Expected(chosen, tokens, density) == least;
}

TEST(ChooseByCostsTest, IsTheFastestOfRandomTables) {
  const auto seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> any(0, 1);
  for (int i = 0; i < 300; ++i) {
    const PathCosts costs = Made(RandomCosts(&random));
    for (size_t tokens = 1; tokens <= 21; ++tokens) {
      const float density = any(random);
      for (bool fused : {false, true}) {
        const auto choose = [&](Execution execution) {
          return ChoosePath(execution, tokens, 4096, density, fused, costs);
        };
        ASSERT_EQ(choose(Execution::kDense), FfnPath::kDense);
        for (Execution execution : {Execution::kAuto, Execution::kSparse}) {
          const FfnPath chosen = choose(execution);
          ASSERT_TRUE(fused || chosen != FfnPath::kFused);
          ASSERT_TRUE(execution == Execution::kAuto ||
                      chosen != FfnPath::kDense);
          ASSERT_TRUE(Fastest(chosen, execution, tokens, density, fused, costs))
              << tokens << " tokens, density " << density;
        }
      }
    }
  }
}

}  // namespace
}  // namespace sparse_ffn::cuda
