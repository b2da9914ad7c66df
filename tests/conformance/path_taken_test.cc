// Which path runs: the fused kernels, in passes where there are many tokens,
// and what the measured times make of it.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/conformance/conformance_test.h"
#include "tests/conformance/test_backend.h"
#include "tests/conformance/test_layer.h"

namespace sparse_ffn {
namespace {

// Gate and up in one kernel: where that were not taken, only the clock would
// tell.
TEST_F(ConformanceTest, BatchesRunFused) {
  if (!TestBackend().fuses_batches) {
    GTEST_SKIP() << "no fused kernels for batches here";
  }
  constexpr size_t kTokens = 66;
  // Those of each pass; none where all run at once.
  const std::map<size_t, std::vector<uint32_t>> pass_tokens = {
      {3, {}},        {8, {}},          {9, {}},       {16, {}},
      {17, {}},       {32, {}},         {33, {32, 1}}, {41, {32, 9}},
      {64, {32, 32}}, {66, {32, 32, 2}}};
  for (const auto& [hidden, intermediate] :
       {std::pair<size_t, size_t>{4096, 11008}, {5120, 13824}, {1536, 3840}}) {
    const TestLayer layer(
        {hidden, intermediate, DataType::kBFloat16, Activation::kRelu, 0, 0.1},
        kTokens, seed_);
    for (SparseForm form : {SparseForm::kFused, SparseForm::kFusedPortable}) {
      const Bench bench = MakeBench({&layer}, kTokens, form);
      for (const auto& [tokens, passes] : pass_tokens) {
        SCOPED_TRACE(testing::Message() << tokens << " tokens of " << hidden
                                        << ", form " << static_cast<int>(form));
        const FfnResult result = Run(*bench.lane, 0, layer.hidden_states,
                                     tokens, Execution::kSparse);
        EXPECT_EQ(result.stats.path, FfnPath::kFused);
        EXPECT_EQ(PassTokens(result.stats), passes);
      }
    }
  }
}

// Also where dense would be faster than the steps: what is timed stands for
// what is fused.
TEST_F(ConformanceTest, OneFusedBatchIn16RunsInSteps) {
  if (!TestBackend().fuses_batches) {
    GTEST_SKIP() << "no fused kernels for batches here";
  }
  const TestLayer layer(
      {256, 600, DataType::kBFloat16, Activation::kRelu, 0, 0.3}, 32, seed_);
  const Bench bench = MakeBench({&layer}, 32);
  std::vector<PathCost> costs;
  for (size_t tokens : {1, 32}) {
    costs.push_back({FfnPath::kFused, tokens, 0, 1});
    costs.push_back({FfnPath::kDense, tokens, 0, 10});
    costs.push_back({FfnPath::kSparse, tokens, 0, 100});
  }
  ASSERT_TRUE(bench.backend->SetPathCosts(costs).ok());
  for (size_t tokens : {1, 2, 20}) {
    std::map<FfnPath, int> batches;
    for (int i = 0; i < 32; ++i) {
      const FfnResult result =
          Run(*bench.lane, 0, layer.hidden_states, tokens, Execution::kAuto);
      ++batches[result.stats.path];
      EXPECT_EQ(result.stats.up_ns != 0, result.stats.path == FfnPath::kSparse);
    }
    EXPECT_EQ(batches[FfnPath::kSparse], 2) << tokens;
    EXPECT_EQ(batches[FfnPath::kFused], 30) << tokens;
  }
}

// Steps take several times as long as passes: no batch is timed in them.
TEST_F(ConformanceTest, PassesAreNotTimed) {
  if (!TestBackend().fuses_batches) {
    GTEST_SKIP() << "no fused kernels for batches here";
  }
  constexpr size_t kTokens = 40;
  const TestLayer layer(
      {256, 600, DataType::kBFloat16, Activation::kRelu, 0, 0.3}, kTokens,
      seed_);
  const Bench bench = MakeBench({&layer}, kTokens);
  // One of 16 batches is timed.
  for (int i = 0; i < 32; ++i) {
    const FfnResult result =
        Run(*bench.lane, 0, layer.hidden_states, kTokens, Execution::kSparse);
    EXPECT_EQ(result.stats.path, FfnPath::kFused) << i;
    EXPECT_EQ(PassTokens(result.stats), (std::vector<uint32_t>{32, 8})) << i;
  }
}

// On the portable backend, which is always sparse, there are no times.
TEST_F(ConformanceTest, ChoosesByMeasuredTimes) {
  constexpr size_t kTokens = 40;
  const TestLayer layer(
      {256, 600, DataType::kBFloat16, Activation::kFatRelu, 0.01F, 0.3},
      kTokens, seed_);
  const OracleResult expected = layer.Expected();
  const Bench bench = MakeBench({&layer, &layer}, kTokens);
  const auto run_all = [&] {
    for (size_t tokens : {size_t{1}, size_t{5}, kTokens}) {
      for (Execution execution : kExecutions) {
        ExpectResult(
            Run(*bench.lane, 1, layer.hidden_states, tokens, execution),
            expected, tokens, execution);
      }
    }
  };
  size_t progress = 0;
  const auto costs = bench.backend->MeasurePaths(10, [&] { ++progress; });
  ASSERT_TRUE(costs.ok()) << costs.status();
  run_all();
  EXPECT_TRUE(bench.backend->SetPathCosts(*costs).ok());
  run_all();
  const bool measures = std::string(TestBackend().name) == "cuda";
  EXPECT_EQ(progress > 0, measures);
  EXPECT_EQ(!costs->empty(), measures);
  if (!measures) return;
  for (FfnPath fastest : {FfnPath::kDense, FfnPath::kSparse}) {
    std::vector<PathCost> made;
    for (FfnPath path : {FfnPath::kDense, FfnPath::kSparse}) {
      const double microseconds = path == fastest ? 1 : 1000;
      made.push_back({path, 1, 0, microseconds});
      made.push_back({path, kTokens, 0, microseconds});
    }
    EXPECT_TRUE(bench.backend->SetPathCosts(made).ok());
    for (size_t tokens : {size_t{1}, size_t{5}, kTokens}) {
      EXPECT_EQ(bench.backend->SparseUpTo(tokens),
                fastest == FfnPath::kDense ? -1 : 1);
      const FfnResult result =
          Run(*bench.lane, 0, layer.hidden_states, tokens, Execution::kAuto);
      EXPECT_EQ(result.stats.path, fastest) << tokens;
    }
    made.push_back(made.front());
    EXPECT_EQ(bench.backend->SetPathCosts(made).code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(ConformanceTest, AFixedFormTakesNoTimes) {
  const TestLayer layer({}, 1, seed_);
  for (SparseForm form : TestBackend().sparse_forms) {
    const Bench bench = MakeBench({&layer}, 1, form);
    EXPECT_EQ(bench.backend->SetPathCosts({}).code(),
              absl::StatusCode::kFailedPrecondition);
  }
}

}  // namespace
}  // namespace sparse_ffn
