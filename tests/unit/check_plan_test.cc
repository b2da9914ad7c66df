#include "client/cli/check_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace sparse_ffn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(LayersToCheckTest, AllThatTheServerHolds) {
  EXPECT_THAT(*LayersToCheck({}, {2, 3}, {0, 1, 2, 3}), ElementsAre(2, 3));
  EXPECT_THAT(*LayersToCheck({{3, 3}}, {2, 3}, {0, 1, 2, 3}), ElementsAre(3));
}

TEST(LayersToCheckTest, NamesTheSideThatLacksOne) {
  const auto server = LayersToCheck({{1, 1}}, {2, 3}, {1, 2, 3});
  EXPECT_EQ(server.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(server.status().message()),
              HasSubstr("server does not hold layer 1"));
  const auto checkpoint = LayersToCheck({}, {2, 3}, {2});
  EXPECT_THAT(std::string(checkpoint.status().message()),
              HasSubstr("checkpoint has no layer 3"));
}

TEST(ChooseCheckSizesTest, EveryCountUpToTheOneNamed) {
  const auto sizes = ChooseCheckSizes(5, 128, 0);
  EXPECT_EQ(sizes->rows, 64u);
  EXPECT_THAT(sizes->token_counts, ElementsAre(1, 2, 3, 4, 5));
  EXPECT_EQ(ChooseCheckSizes(100, 128, 0)->rows, 100u);
  EXPECT_EQ(ChooseCheckSizes(5, 128, 6)->rows, 6u);
}

TEST(ChooseCheckSizesTest, UsualCountsEndWithTheLargest) {
  EXPECT_THAT(ChooseCheckSizes(0, 1000, 0)->token_counts,
              ElementsAre(1, 2, 3, 7, 8, 16, 33, 64));
  EXPECT_THAT(ChooseCheckSizes(0, 1000, 60)->token_counts,
              ElementsAre(1, 2, 3, 7, 8, 16, 33, 60));
  EXPECT_THAT(ChooseCheckSizes(0, 8, 0)->token_counts,
              ElementsAre(1, 2, 3, 7, 8));
  EXPECT_THAT(ChooseCheckSizes(0, 1, 500)->token_counts, ElementsAre(1));
  EXPECT_EQ(ChooseCheckSizes(0, 1, 500)->rows, 64u);
}

TEST(ChooseCheckSizesTest, TooMany) {
  EXPECT_EQ(ChooseCheckSizes(9, 8, 0).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ChooseCheckSizes(8, 8, 7).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(RequestStartsTest, CoverEveryRow) {
  EXPECT_THAT(RequestStarts(6, 2), ElementsAre(0, 2, 4));
  EXPECT_THAT(RequestStarts(7, 3), ElementsAre(0, 3, 4));
  EXPECT_THAT(RequestStarts(5, 5), ElementsAre(0));
  EXPECT_THAT(RequestStarts(3, 1), ElementsAre(0, 1, 2));
}

}  // namespace
}  // namespace sparse_ffn
