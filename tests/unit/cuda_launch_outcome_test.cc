#include <gtest/gtest.h>

#include "kernels/cuda/launch_outcome.h"

namespace sparse_ffn::cuda {
namespace {

TEST(LaunchOutcomeTest, IsPendingUntilItsOwnWord) {
  EXPECT_EQ(OutcomeOf(0, kNotAhead, 0), LaunchOutcome::kPending);
  EXPECT_EQ(OutcomeOf(-6, kNotAhead, 7), LaunchOutcome::kPending);
  EXPECT_EQ(OutcomeOf(kNotAhead, 6, 7), LaunchOutcome::kPending);
  EXPECT_EQ(OutcomeOf(kNotAhead, kNotAhead, 7), LaunchOutcome::kRan);
  EXPECT_EQ(OutcomeOf(6, 6, 7), LaunchOutcome::kRan);
  EXPECT_EQ(OutcomeOf(-6, 6, 0), LaunchOutcome::kLeft);
}

// As where the host did not get to run for longer than launches wait.
TEST(LaunchOutcomeTest, IsKnownWhereTheLaunchBehindItLeftBeforeALook) {
  EXPECT_EQ(OutcomeOf(-7, kNotAhead, 7), LaunchOutcome::kRan);
  EXPECT_EQ(OutcomeOf(-7, 6, 7), LaunchOutcome::kLeft);
}

}  // namespace
}  // namespace sparse_ffn::cuda
