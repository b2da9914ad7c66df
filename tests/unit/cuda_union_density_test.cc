#include <gtest/gtest.h>

#include "kernels/cuda/union_density.h"

namespace sparse_ffn::cuda {
namespace {

TEST(UnionDensityTest, ExpectsNothingBeforeTheFirstBatch) {
  const UnionDensity density;
  EXPECT_EQ(density.Expected(1), 0);
  EXPECT_EQ(density.Expected(1000000), 0);
}

TEST(UnionDensityTest, TakesTheFirstBatchWhole) {
  UnionDensity density;
  density.Update(1, 0.25F);
  EXPECT_EQ(density.Expected(1), 0.25F);
}

TEST(UnionDensityTest, MovesAnEighthOfTheWay) {
  UnionDensity density;
  density.Update(1, 0.5F);
  density.Update(1, 1.0F);
  EXPECT_FLOAT_EQ(density.Expected(1), 0.5625F);
}

TEST(UnionDensityTest, FollowsAChange) {
  UnionDensity density;
  density.Update(4, 0.1F);
  for (int i = 0; i < 100; ++i) density.Update(4, 0.9F);
  EXPECT_NEAR(density.Expected(4), 0.9F, 1e-3F);
}

TEST(UnionDensityTest, KeepsBatchSizesApart) {
  UnionDensity density;
  density.Update(1, 0.1F);
  density.Update(2, 0.2F);
  density.Update(4, 0.3F);
  EXPECT_EQ(density.Expected(1), 0.1F);
  EXPECT_EQ(density.Expected(2), 0.2F);
  EXPECT_EQ(density.Expected(3), 0.3F) << "3 and 4 share an estimate";
}

TEST(UnionDensityTest, ExpectsOfALargerBatchWhatASmallerOneHad) {
  UnionDensity density;
  density.Update(2, 0.2F);
  density.Update(8, 0.5F);
  EXPECT_EQ(density.Expected(4), 0.2F);
  EXPECT_EQ(density.Expected(9), 0.5F);
  EXPECT_EQ(density.Expected(1000000), 0.5F);
  EXPECT_EQ(density.Expected(1), 0) << "a larger batch says little";
  density.Update(4, 0.3F);
  EXPECT_EQ(density.Expected(4), 0.3F) << "the first of its size counts whole";
}

// Else a layer whose batch ran dense once would never run in passes again.
TEST(UnionDensityTest, ExpectsOfAPassWhatPassesHad) {
  UnionDensity density;
  density.Update(64, 0.35F);
  EXPECT_EQ(density.ExpectedOfPass(64, 32), 0) << "hope";
  density.Update(32, 0.22F);
  density.Update(64, 0.35F);
  EXPECT_EQ(density.ExpectedOfPass(64, 32), 0.22F);
  EXPECT_EQ(density.Expected(64), 0.35F);
  EXPECT_EQ(density.ExpectedOfPass(20, 32), density.Expected(20));
}

TEST(UnionDensityTest, ExpectsOfAPassNoMoreThanOfTheBatch) {
  UnionDensity density;
  density.Update(32, 0.5F);
  density.Update(64, 0.1F);
  EXPECT_EQ(density.ExpectedOfPass(64, 32), 0.1F);
}

}  // namespace
}  // namespace sparse_ffn::cuda
