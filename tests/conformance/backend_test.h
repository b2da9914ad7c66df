// What the conformance tests have in common.
#ifndef SPARSE_FFN_TESTS_CONFORMANCE_BACKEND_TEST_H_
#define SPARSE_FFN_TESTS_CONFORMANCE_BACKEND_TEST_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/conformance/test_backend.h"
#include "tests/conformance/test_layer.h"

namespace sparse_ffn {

using Bits = std::vector<uint8_t>;  // Of one row of an output.

inline constexpr std::array<Execution, 3> kExecutions = {
    Execution::kAuto, Execution::kSparse, Execution::kDense};

// Skips its tests where the backend cannot run here; draws and prints a seed.
class BackendTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto backend = NewTestBackend(ConfigOf({}, 1));
    if (backend.status().code() == absl::StatusCode::kUnavailable) {
      GTEST_SKIP() << TestBackend().name << ": " << backend.status();
    }
    ASSERT_TRUE(backend.ok()) << backend.status();
    seed_ = std::random_device()();
    trace_ = std::make_unique<testing::ScopedTrace>(
        __FILE__, __LINE__, "seed " + std::to_string(seed_));
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed_));
  }

  static FfnConfig ConfigOf(const TestLayerShape& shape, size_t max_tokens) {
    FfnConfig config;
    config.hidden_size = shape.hidden_size;
    config.intermediate_size = shape.intermediate_size;
    config.num_layers = 2;
    config.max_batch_tokens = max_tokens;
    config.weights_dtype = shape.dtype;
    config.activation = shape.activation;
    config.threshold = shape.threshold;
    return config;
  }

  // Layers 0, 1, ... are `layers`.
  static std::unique_ptr<FfnBackend> MakeBackend(
      const FfnConfig& config, const std::vector<const TestLayer*>& layers,
      SparseForm form = SparseForm::kAuto) {
    auto backend = NewTestBackend(config, form).value();
    for (size_t i = 0; i < layers.size(); ++i) {
      const absl::Status status =
          backend->AddLayer(static_cast<int>(i), layers[i]->weights());
      EXPECT_TRUE(status.ok()) << status;
    }
    return backend;
  }

  static std::vector<Bits> RowsOf(const FfnResult& result) {
    std::vector<Bits> rows;
    for (size_t t = 0; t < result.output.rows; ++t) {
      const auto* row = static_cast<const uint8_t*>(result.output.row(t));
      rows.emplace_back(row, row + result.output.row_bytes());
    }
    return rows;
  }

  // Tokens of each pass; none where all ran at once.
  static std::vector<uint32_t> PassTokens(const FfnStats& stats) {
    std::vector<uint32_t> tokens;
    for (const FfnPass& pass : stats.passes) tokens.push_back(pass.tokens);
    return tokens;
  }

  // Expects what `stats` tell of the union and the passes of a batch of
  // `tokens`, the first of which is number `first` of `expected`.
  static void ExpectUnion(const FfnStats& stats, const OracleResult& expected,
                          size_t first, size_t tokens) {
    if (stats.passes.empty()) {
      EXPECT_EQ(stats.union_active_neurons, UnionOf(expected, first, tokens));
      return;
    }
    const size_t end = first + tokens;
    uint32_t most = 0;
    for (const FfnPass& pass : stats.passes) {
      ASSERT_LE(first + pass.tokens, end);
      EXPECT_EQ(pass.union_active_neurons,
                UnionOf(expected, first, pass.tokens));
      most = std::max(most, pass.union_active_neurons);
      first += pass.tokens;
    }
    EXPECT_EQ(first, end);
    EXPECT_EQ(stats.union_active_neurons, most);
  }

  uint64_t seed_ = 0;
  std::unique_ptr<testing::ScopedTrace> trace_;
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_TESTS_CONFORMANCE_BACKEND_TEST_H_
