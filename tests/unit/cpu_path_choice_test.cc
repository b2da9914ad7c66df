#include <gtest/gtest.h>

#include "kernels/cpu/path_choice.h"

namespace sparse_ffn::cpu {
namespace {

TEST(CpuPathChoiceTest, ObeysTheCaller) {
  for (float density : {0.0F, 0.5F, 1.0F}) {
    EXPECT_EQ(ChoosePath(Execution::kSparse, density), FfnPath::kSparse);
    EXPECT_EQ(ChoosePath(Execution::kDense, density), FfnPath::kDense);
  }
}

TEST(CpuPathChoiceTest, SkipsRowsAsLongAsThatPays) {
  EXPECT_EQ(ChoosePath(Execution::kAuto, 0), FfnPath::kSparse);
  EXPECT_EQ(ChoosePath(Execution::kAuto, 0.11F), FfnPath::kSparse);
  EXPECT_EQ(ChoosePath(Execution::kAuto, 0.7F), FfnPath::kSparse);
  EXPECT_EQ(ChoosePath(Execution::kAuto, 1), FfnPath::kDense);
}

TEST(ActiveDensityTest, FollowsWhatItSees) {
  ActiveDensity density;
  EXPECT_EQ(density.Expected(), 0);
  density.Update(0.5F);
  EXPECT_EQ(density.Expected(), 0.5F);
  density.Update(0.9F);
  EXPECT_NEAR(density.Expected(), 0.55F, 1e-6);
  for (int i = 0; i < 100; ++i) density.Update(0.9F);
  EXPECT_NEAR(density.Expected(), 0.9F, 1e-3);
}

}  // namespace
}  // namespace sparse_ffn::cpu
