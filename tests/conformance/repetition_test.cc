// What runs again, or beside another lane, gives the same.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "tests/conformance/conformance_test.h"
#include "tests/conformance/test_backend.h"
#include "tests/conformance/test_layer.h"

namespace sparse_ffn {
namespace {

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
      const auto* bytes = static_cast<const uint8_t*>(result.output.data);
      const std::vector<uint8_t> now(bytes, bytes + result.output.bytes());
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
      const auto* bytes = static_cast<const uint8_t*>(result.output.data);
      const std::vector<uint8_t> now(bytes, bytes + result.output.bytes());
      if (i == 0) first = now;
      EXPECT_EQ(now, first) << i;
    }
  }
}

TEST_F(ConformanceTest, LanesRunSideBySide) {
  constexpr size_t kTokens = 12;
  const TestLayerShape shape = {
      256, 600, DataType::kBFloat16, Activation::kDRelu, 0, 0.3};
  const TestLayer a(shape, kTokens, seed_);
  const TestLayer b(shape, kTokens, seed_ + 1);
  const OracleResult expected_a = a.Expected();
  const OracleResult expected_b = b.Expected();
  const Bench bench = MakeBench({&a, &b}, kTokens);
  const std::unique_ptr<FfnLane> second = bench.backend->NewLane().value();
  const auto work = [](FfnLane& lane, int index, const TestLayer& layer,
                       const OracleResult& expected) {
    for (size_t i = 0; i < 60; ++i) {
      const size_t tokens = i % kTokens + 1;
      const Execution execution = kExecutions[i % kExecutions.size()];
      ExpectResult(Run(lane, index, layer.hidden_states, tokens, execution),
                   expected, tokens, execution);
    }
  };
  std::thread other([&] { work(*second, 1, b, expected_b); });
  work(*bench.lane, 0, a, expected_a);
  other.join();
}

}  // namespace
}  // namespace sparse_ffn
