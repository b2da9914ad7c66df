// What runs again, or beside another lane, gives the same.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "tests/conformance/conformance_test.h"
#include "tests/conformance/test_backend.h"
#include "tests/conformance/test_layer.h"

namespace sparse_ffn {
namespace {

std::vector<uint8_t> Bytes(const ConstMatrix& matrix) {
  const auto* bytes = static_cast<const uint8_t*>(matrix.data);
  return {bytes, bytes + matrix.bytes()};
}

TEST_F(ConformanceTest, RepeatsItself) {
  constexpr size_t kTokens = 17;
  const TestLayer layer(
      {300, 700, DataType::kBFloat16, Activation::kRelu, 0, 0.2}, kTokens,
      seed_);
  const OracleResult expected = layer.Expected();
  const Bench bench = MakeBench({&layer}, kTokens);
  for (Execution execution : {Execution::kSparse, Execution::kDense}) {
    std::vector<uint8_t> first;
    for (int i = 0; i < 20; ++i) {
      const FfnResult result =
          Run(*bench.lane, 0, layer.hidden_states, kTokens, execution);
      ExpectResult(result, expected, kTokens, execution);
      const std::vector<uint8_t> now = Bytes(result.output);
      if (i == 0) first = now;
      if (TestBackend().repeats_bit_for_bit) {
        EXPECT_EQ(now, first);
      }
    }
  }
}

// Sums of the fused forms are made in one order.
TEST_F(ConformanceTest, FusedRepeatsBitForBit) {
  const TestLayer layer(
      {1024, 3000, DataType::kBFloat16, Activation::kRelu, 0, 0.2}, 1, seed_);
  for (SparseForm form : TestBackend().sparse_forms) {
    if (form == SparseForm::kSteps) continue;
    const Bench bench = MakeBench({&layer}, 1, form);
    std::vector<uint8_t> first;
    for (int i = 0; i < 50; ++i) {
      const FfnResult result =
          Run(*bench.lane, 0, layer.hidden_states, 1, Execution::kSparse);
      const std::vector<uint8_t> now = Bytes(result.output);
      if (i == 0) first = now;
      EXPECT_EQ(now, first) << i;
    }
  }
}

TEST_F(ConformanceTest, FusedPairGivesWhatEachTokenGetsAlone) {
  if (!TestBackend().fuses_batches) {
    GTEST_SKIP() << "no fused kernel for two tokens here";
  }
  // Rows that are whole segments of 32 packs, and others.
  for (size_t hidden : {1024, 328, 4104}) {
    const TestLayer layer(
        {hidden, 3000, DataType::kBFloat16, Activation::kDRelu, 0, 0.2}, 2,
        seed_);
    const Bench bench = MakeBench({&layer}, 2, SparseForm::kFused);
    const FfnResult pair =
        Run(*bench.lane, 0, layer.hidden_states, 2, Execution::kSparse);
    EXPECT_EQ(pair.stats.path, FfnPath::kFused);
    const std::vector<uint8_t> together = Bytes(pair.output);
    std::vector<uint8_t> alone;
    for (size_t token = 0; token < 2; ++token) {
      const Matrix input = bench.lane->input(1);
      std::memcpy(input.data, layer.hidden_states.view().row(token),
                  input.row_bytes());
      const auto result = bench.lane->Run(0, 1, Execution::kSparse);
      ASSERT_TRUE(result.ok()) << result.status();
      const std::vector<uint8_t> row = Bytes(result->output);
      alone.insert(alone.end(), row.begin(), row.end());
    }
    EXPECT_EQ(together, alone) << hidden;
  }
}

// More lanes than a device has room for at once, and work enough to meet.
TEST_F(ConformanceTest, LanesRunSideBySide) {
  constexpr size_t kTokens = 12;
  constexpr size_t kLanes = 5;
  const TestLayerShape shape = {
      64, 9000, DataType::kBFloat16, Activation::kDRelu, 0, 0.3};
  std::vector<std::unique_ptr<TestLayer>> layers;
  std::vector<const TestLayer*> views;
  for (size_t i = 0; i < kLanes; ++i) {
    layers.push_back(std::make_unique<TestLayer>(shape, kTokens, seed_ + i));
    views.push_back(layers.back().get());
  }
  const Bench bench = MakeBench(views, kTokens);
  const auto work = [&](int index, FfnLane& lane) {
    const TestLayer& layer = *layers[index];
    const OracleResult expected = layer.Expected();
    for (size_t i = 0; i < 60; ++i) {
      // Mostly one token: blocks of such a launch wait for its first one.
      const size_t tokens = i % 5 < 3 ? 1 : i % kTokens + 1;
      const Execution execution = kExecutions[i % kExecutions.size()];
      ExpectResult(Run(lane, index, layer.hidden_states, tokens, execution),
                   expected, tokens, execution);
    }
  };
  std::vector<std::unique_ptr<FfnLane>> lanes;
  for (size_t i = 0; i < kLanes; ++i) {
    lanes.push_back(bench.backend->NewLane().value());
  }
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kLanes; ++i) {
    threads.emplace_back([&, i] { work(static_cast<int>(i), *lanes[i]); });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace sparse_ffn
