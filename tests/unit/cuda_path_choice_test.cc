#include <gtest/gtest.h>

#include "kernels/cuda/path_choice.h"

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
  EXPECT_TRUE(UsesFused(SparseForm::kAuto, true, true, false));
  EXPECT_FALSE(UsesFused(SparseForm::kAuto, true, false, false));
  EXPECT_FALSE(UsesFused(SparseForm::kAuto, true, true, true));
  EXPECT_FALSE(UsesFused(SparseForm::kAuto, false, true, false));
}

TEST(CudaPathChoiceTest, ForcedFormWins) {
  for (bool fast : {false, true}) {
    for (bool timed : {false, true}) {
      EXPECT_FALSE(UsesFused(SparseForm::kSteps, true, fast, timed));
      EXPECT_TRUE(UsesFused(SparseForm::kFused, true, fast, timed));
      EXPECT_TRUE(UsesFused(SparseForm::kFusedPortable, true, fast, timed));
      EXPECT_FALSE(UsesFused(SparseForm::kFused, false, fast, timed));
    }
  }
}

TEST(CudaPathChoiceTest, FusedIsTakenAtAnyDensityUnlessDenseIsForced) {
  for (float density : {0.0F, 0.5F, 1.0F}) {
    EXPECT_EQ(ChoosePath(Execution::kAuto, 1, 4096, density, true, {}),
              FfnPath::kFused);
    EXPECT_EQ(ChoosePath(Execution::kSparse, 1, 4096, density, true, {}),
              FfnPath::kFused);
    EXPECT_EQ(ChoosePath(Execution::kDense, 1, 4096, density, true, {}),
              FfnPath::kDense);
  }
}

TEST(CudaPathChoiceTest, AFullBatchIsDenseAndNotFused) {
  for (size_t tokens : {2, 8, 32}) {
    EXPECT_EQ(ChoosePath(Execution::kAuto, tokens, 4096, 0.8F, true, {}),
              FfnPath::kFused);
    EXPECT_EQ(ChoosePath(Execution::kAuto, tokens, 4096, 1.0F, true, {}),
              FfnPath::kDense);
    EXPECT_EQ(ChoosePath(Execution::kSparse, tokens, 4096, 1.0F, true, {}),
              FfnPath::kFused);
  }
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

}  // namespace
}  // namespace sparse_ffn::cuda
