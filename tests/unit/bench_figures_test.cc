#include "tests/bench/bench_figures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/bench/bench_masks.h"
#include "tests/bench/bench_options.h"
#include "tests/bench/case_report.h"

namespace sparse_ffn::bench {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// 1 TB/s reads 1 MB in a microsecond.
constexpr double kBandwidth = 1e12;
constexpr double kMatrixBytes = 20e6;

TEST(BenchFiguresTest, FloorIsTheGateAndTheActiveRows) {
  const Figures figures = Derive({}, 0.25, kMatrixBytes, kBandwidth);
  EXPECT_DOUBLE_EQ(figures.floor_bytes, 30e6);
  EXPECT_DOUBLE_EQ(figures.floor_us, 30);
}

TEST(BenchFiguresTest, RatiosAreThoseOfTheFasterWays) {
  CaseTimes times;
  times.steps = 60;
  times.fused = 40;
  times.dense_transposed = 120;
  times.dense_natural = 100;
  const Figures figures = Derive(times, 0.25, kMatrixBytes, kBandwidth);
  EXPECT_DOUBLE_EQ(figures.sparse_us, 40);
  EXPECT_DOUBLE_EQ(figures.dense_us, 100);
  EXPECT_DOUBLE_EQ(figures.bytes_per_second, 0.75e12);
  EXPECT_DOUBLE_EQ(figures.read_share, 0.75);
  EXPECT_DOUBLE_EQ(figures.to_floor, 40.0 / 30);
  EXPECT_DOUBLE_EQ(figures.to_dense, 2.5);
}

TEST(BenchFiguresTest, StepsAloneAreComparedWithTheirOwnProducts) {
  CaseTimes times;
  times.step2 = 5;
  times.step3 = 4;
  times.dense_step2 = 26;
  times.dense_step3_transposed = 25;
  times.dense_step3_natural = 24;
  Figures figures = Derive(times, 0.25, kMatrixBytes, kBandwidth);
  EXPECT_DOUBLE_EQ(figures.step2_to_dense, 5.2);
  EXPECT_DOUBLE_EQ(figures.step3_to_dense, 6);
  times.step2 = 0;
  times.dense_step3_natural = 0;
  figures = Derive(times, 0.25, kMatrixBytes, kBandwidth);
  EXPECT_EQ(figures.step2_to_dense, 0);
  EXPECT_DOUBLE_EQ(figures.step3_to_dense, 6.25);
}

TEST(BenchFiguresTest, TheTypicalLayerIsNearestToTheMean) {
  // Two tokens of four neurons; unions of 1, 4 and 2.
  const Masks masks = {{1, 0, 0, 0, 1, 0, 0, 0},
                       {1, 1, 0, 0, 0, 0, 1, 1},
                       {0, 1, 0, 0, 0, 0, 1, 0}};
  EXPECT_DOUBLE_EQ(UnionDensity(masks, 4), 7.0 / 12);
  EXPECT_EQ(TypicalLayer(masks, 4), 2);
  EXPECT_EQ(TypicalLayer({masks[1], masks[1]}, 4), 0);
}

TEST(BenchFiguresTest, WhatWasNotMeasuredIsNeitherFastNorARatio) {
  CaseTimes times;
  times.steps = 60;
  Figures figures = Derive(times, 0.25, kMatrixBytes, kBandwidth);
  EXPECT_DOUBLE_EQ(figures.sparse_us, 60);
  EXPECT_DOUBLE_EQ(figures.to_floor, 2);
  EXPECT_EQ(figures.to_dense, 0);
  times.steps = 0;
  times.dense_natural = 100;
  figures = Derive(times, 0.25, kMatrixBytes, kBandwidth);
  EXPECT_DOUBLE_EQ(figures.dense_us, 100);
  EXPECT_EQ(figures.sparse_us, 0);
  EXPECT_EQ(figures.bytes_per_second, 0);
  EXPECT_EQ(figures.to_floor, 0);
  EXPECT_EQ(figures.to_dense, 0);
}

TEST(BenchFiguresTest, Medians) {
  EXPECT_EQ(Median({}), 0);
  EXPECT_EQ(Median({3}), 3);
  EXPECT_EQ(Median({9, 1, 5}), 5);
  EXPECT_EQ(Median({4, 1, 3, 2}), 3);
}

TEST(BenchFiguresTest, RelativeErrors) {
  const std::vector<float> expected = {3, 4};
  EXPECT_EQ(RelativeError(expected, expected), 0);
  EXPECT_EQ(RelativeError({0, 0}, {0, 0}), 0);
  EXPECT_DOUBLE_EQ(RelativeError({3, 4.5F}, expected), 0.1);
  EXPECT_TRUE(std::isnan(RelativeError({NAN, 4}, expected)));
}

TEST(BenchFiguresTest, CasesGoThroughAllInputsOfABatchSize) {
  Options options;
  options.tokens = {1, 8};
  options.sparsities = {0, 0.6698};
  options.replay = "rows.npy";
  std::vector<std::string> inputs;
  for (const Case& one : Cases(options)) {
    inputs.push_back(std::to_string(one.tokens) + " " + one.input());
  }
  EXPECT_THAT(inputs, testing::ElementsAre("1 0%", "1 66.98%", "1 real rows",
                                           "8 0%", "8 66.98%", "8 real rows"));
}

TEST(BenchFiguresTest, ReportsLeaveOutWhatWasNotMeasured) {
  TimedCase timed{"prosparse-7b", "bfloat16", 8, "89.3%", 30, 0.25, {}, {}};
  timed.times.steps = 60;
  timed.figures = Derive(timed.times, 0.25, kMatrixBytes, kBandwidth);
  EXPECT_EQ(timed.Key(), "prosparse-7b/bfloat16/8/89.3%/30 layers");
  const nlohmann::json entry = CaseJson(timed);
  EXPECT_EQ(entry.at("key"), timed.Key());
  EXPECT_EQ(entry.at("steps_us"), 60);
  EXPECT_EQ(entry.at("ratio_to_floor"), 2);
  EXPECT_FALSE(entry.contains("fused_us"));
  EXPECT_FALSE(entry.contains("dense_us"));
  const std::string row = TableRow(timed);
  EXPECT_THAT(row, HasSubstr(" 60.0 "));
  EXPECT_THAT(row, HasSubstr(" - "));
  EXPECT_THAT(row, Not(HasSubstr(" 0.0 ")));
  EXPECT_EQ(row.size(), TableHeader().size());
}

}  // namespace
}  // namespace sparse_ffn::bench
