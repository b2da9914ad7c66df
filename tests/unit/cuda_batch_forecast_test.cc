#include <gtest/gtest.h>

#include <cstddef>
#include <iterator>
#include <optional>
#include <utility>

#include "kernels/cuda/batch_forecast.h"

namespace sparse_ffn::cuda {
namespace {

using Batch = BatchForecast::Batch;

TEST(BatchForecast, ForeseesWhatCameTwice) {
  BatchForecast forecast({{0, 1}, {1, 1}, {2, 1}});
  EXPECT_EQ(forecast.Next(), std::nullopt);
  // What is foreseen after each batch.
  const std::pair<int, std::optional<Batch>> steps[] = {
      {0, std::nullopt}, {1, std::nullopt}, {2, std::nullopt},
      {0, std::nullopt}, {1, std::nullopt}, {2, std::nullopt},
      {0, Batch{1, 1}},  {1, Batch{2, 1}},  {2, Batch{0, 1}},
      {1, Batch{2, 1}},   // Not foreseen.
      {2, std::nullopt},  // After it came 1 the last time.
  };
  for (size_t i = 0; i < std::size(steps); ++i) {
    forecast.Add(Batch{steps[i].first, 1});
    EXPECT_EQ(forecast.Next(), steps[i].second) << i;
  }
}

TEST(BatchForecast, ForeseesTheSameAgain) {
  BatchForecast forecast({{7, 2}});
  forecast.Add(Batch{7, 2});
  forecast.Add(Batch{7, 2});
  EXPECT_EQ(forecast.Next(), std::nullopt);
  forecast.Add(Batch{7, 2});
  EXPECT_EQ(forecast.Next(), Batch(7, 2));
}

TEST(BatchForecast, ForeseesOnlyWhatItIsMadeFor) {
  BatchForecast forecast({{0, 1}, {1, 1}});
  for (int round = 0; round < 4; ++round) {
    forecast.Add(Batch{0, 1});
    EXPECT_EQ(forecast.Next(), std::nullopt);  // What comes is another kind.
    forecast.Add(std::nullopt);
    EXPECT_EQ(forecast.Next(), std::nullopt);
    forecast.Add(Batch{1, 1});
    EXPECT_EQ(forecast.Next(), std::nullopt);
    forecast.Add(Batch{1, 2});
    EXPECT_EQ(forecast.Next(), std::nullopt);
  }
}

}  // namespace
}  // namespace sparse_ffn::cuda
