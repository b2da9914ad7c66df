// What a batch must leave alone: the weights of neurons that no token needs,
// and tokens beside one that is not finite.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "tests/conformance/conformance_test.h"
#include "tests/conformance/test_backend.h"
#include "tests/conformance/test_layer.h"

namespace sparse_ffn {
namespace {

TEST_F(ConformanceTest, ReadsOnlyRowsThatThisBatchNeeds) {
  for (DataType dtype : TestBackend().weights_dtypes) {
    for (size_t tokens : {1, 2, 7, 33}) {
      const TestLayer layer({200, 900, dtype, Activation::kFatRelu, 0.3F, 0.05},
                            tokens, seed_);
      const OracleResult expected = layer.Expected();
      TestLayer poisoned = layer;
      const uint32_t left = poisoned.PoisonInactive(expected, tokens);
      EXPECT_EQ(left, UnionOf(expected, 0, tokens));
      EXPECT_LT(left, 900U);
      const Bench bench = MakeBench({&poisoned}, tokens);
      // The first batch of a lane may run otherwise than the next.
      for (int i = 0; i < 2; ++i) {
        ExpectResult(Run(*bench.lane, 0, layer.hidden_states, tokens,
                         Execution::kSparse),
                     expected, tokens, Execution::kSparse);
      }
    }
  }
}

// Weights of a neuron that one token needs are read, but count for that token
// only. Rows are not aligned, so that no batch form of CUDA runs: that one
// promises less (launch_steps.h).
TEST_F(ConformanceTest, KeepsRowsFromTokensThatDoNotNeedThem) {
  constexpr size_t kTokens = 9;
  constexpr size_t kHidden = 70;
  constexpr size_t kNeurons = 150;
  for (DataType dtype : TestBackend().weights_dtypes) {
    const TestLayer layer(
        {kHidden, kNeurons, dtype, Activation::kFatRelu, 0.3F, 0.15}, kTokens,
        seed_);
    const OracleResult clean = layer.Expected();
    TestLayer poisoned = layer;
    // The neurons of token 4 that token 0 does not need.
    const std::vector<float> nan(kHidden,
                                 std::numeric_limits<float>::quiet_NaN());
    for (size_t j = 0; j < kNeurons; ++j) {
      if (clean.active[j] != 0 || clean.active[4 * kNeurons + j] == 0) continue;
      poisoned.up_proj.SetRow(j, nan);
      poisoned.down_proj.SetRow(j, nan);
    }
    const Bench bench = MakeBench({&poisoned}, kTokens);
    ExpectResult(
        Run(*bench.lane, 0, layer.hidden_states, kTokens, Execution::kSparse),
        poisoned.Expected(), kTokens, Execution::kSparse);
    EXPECT_TRUE(std::isnan(poisoned.Expected().output[4 * kHidden]));
    EXPECT_FALSE(std::isnan(poisoned.Expected().output[0]));
  }
}

class NotFiniteTest : public ConformanceTest {
 protected:
  static constexpr size_t kTokens = 9;
  static constexpr size_t kBad = 4;  // The token that is not finite.
  static constexpr size_t kNeurons = 130;

  // `clean` is what the layer gives without the bad value.
  static void ExpectOnlyBadToken(const FfnResult& result,
                                 const OracleResult& clean) {
    const GatedAs gated = Gated(result.stats, kTokens);
    for (size_t t = 0; t < kTokens; ++t) {
      const ConstMatrix row = {result.output.row(t), 1, clean.hidden_size,
                               DataType::kFloat32};
      if (t != kBad) {
        EXPECT_TRUE(Compare(clean, t, row, gated).passed) << t;
        EXPECT_EQ(result.stats.active_neurons[t], clean.active_neurons[t]);
        continue;
      }
      const auto* output = static_cast<const float*>(row.data);
      for (size_t c = 0; c < clean.hidden_size; ++c) {
        EXPECT_FALSE(std::isfinite(output[c])) << c;
      }
    }
  }

  void ExpectStaysWithItsToken(size_t hidden_size, DataType dtype,
                               const Sigma& sigma) const {
    const TestLayer layer(
        {hidden_size, kNeurons, dtype, sigma.activation, sigma.threshold, 0.2},
        kTokens, seed_);
    const OracleResult clean = layer.Expected();
    const Bench bench = MakeBench({&layer}, kTokens);
    for (float bad : {std::numeric_limits<float>::quiet_NaN(),
                      std::numeric_limits<float>::infinity()}) {
      OwnedMatrix states = layer.hidden_states;
      std::vector<float> row = states.Row(kBad);
      row[17] = bad;
      states.SetRow(kBad, row);
      // The first batch of a lane may run otherwise than the next.
      for (Execution execution :
           {Execution::kSparse, Execution::kSparse, Execution::kDense}) {
        SCOPED_TRACE(testing::Message()
                     << hidden_size << " " << DataTypeName(dtype) << " "
                     << ActivationName(sigma.activation) << " " << bad);
        const FfnResult result =
            Run(*bench.lane, 0, states, kTokens, execution);
        ExpectOnlyBadToken(result, clean);
        if (!std::isnan(bad)) continue;
        EXPECT_EQ(result.stats.active_neurons[kBad], kNeurons);
        EXPECT_EQ(result.stats.union_active_neurons, kNeurons);
      }
    }
  }
};

TEST_F(NotFiniteTest, StaysWithItsToken) {
  for (DataType dtype : TestBackend().weights_dtypes) {
    for (const Sigma& sigma : kSigmas) {
      // Only rows of the second size are aligned.
      for (size_t hidden_size : {65, 64}) {
        ExpectStaysWithItsToken(hidden_size, dtype, sigma);
      }
    }
  }
}

TEST_F(ConformanceTest, NotFiniteTokenIsSeenInEachForm) {
  const TestLayer layer(
      {64, 130, DataType::kBFloat16, Activation::kFatRelu, 0.01F, 0.2}, 1,
      seed_);
  OwnedMatrix states = layer.hidden_states;
  std::vector<float> row = states.Row(0);
  row[17] = std::numeric_limits<float>::quiet_NaN();
  states.SetRow(0, row);
  for (SparseForm form : TestBackend().sparse_forms) {
    const Bench bench = MakeBench({&layer}, 1, form);
    const FfnResult result = Run(*bench.lane, 0, states, 1, Execution::kSparse);
    EXPECT_EQ(result.stats.active_neurons[0], 130U);
    const auto* output = static_cast<const float*>(result.output.data);
    for (size_t c = 0; c < 64; ++c) EXPECT_TRUE(std::isnan(output[c])) << c;
  }
}

}  // namespace
}  // namespace sparse_ffn
