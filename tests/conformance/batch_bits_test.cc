// On backends that promise it: a token's bits depend on nothing but its own
// hidden states and the weights, whatever its batch and the kernels chosen.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "tests/conformance/backend_test.h"
#include "tests/conformance/test_backend.h"
#include "tests/conformance/test_layer.h"

namespace sparse_ffn {
namespace {

class BatchBitsTest : public BackendTest {
 protected:
  void SetUp() override {
    BackendTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (!TestBackend().independent_of_batch) {
      GTEST_SKIP() << TestBackend().name << ": bits depend on the batch";
    }
  }

  // Layers 0, 1, ... are `layers`.
  void MakeLane(const std::vector<const TestLayer*>& layers,
                size_t max_tokens) {
    lane_.reset();
    backend_ = MakeBackend(ConfigOf(layers.front()->shape, max_tokens), layers);
    lane_ = backend_->NewLane().value();
  }

  // The output's rows for the rows [first, first + tokens) of `states`.
  std::vector<Bits> Run(int layer, const OwnedMatrix& states, size_t first,
                        size_t tokens, Execution execution) {
    const Matrix input = lane_->input(tokens);
    std::memcpy(input.data, states.view().row(first), input.bytes());
    return RowsOf(lane_->Run(layer, tokens, execution).value());
  }

  std::unique_ptr<FfnBackend> backend_;
  std::unique_ptr<FfnLane> lane_;
};

// Layer 1 holds NaN in rows that no token needs, which keeps a backend from
// computing with 0 times its rows.
TEST_F(BatchBitsTest, AreThoseOfTheTokenAlone) {
  constexpr size_t kTokens = 33;
  for (DataType dtype : TestBackend().weights_dtypes) {
    for (double density : {0.05, 0.4, 0.7, 1.0}) {
      SCOPED_TRACE(testing::Message() << DataTypeName(dtype) << " " << density);
      const TestLayer layer({130, 300, dtype, Activation::kRelu, 0, density},
                            kTokens, seed_);
      TestLayer poisoned = layer;
      poisoned.PoisonInactive(layer.Expected(), kTokens);
      MakeLane({&layer, &poisoned}, kTokens);
      std::vector<Bits> alone;
      for (size_t t = 0; t < kTokens; ++t) {
        alone.push_back(
            Run(0, layer.hidden_states, t, 1, Execution::kSparse)[0]);
      }
      for (size_t tokens : {1, 2, 7, 33}) {
        const std::vector<Bits> expected(
            alone.begin(), alone.begin() + static_cast<ptrdiff_t>(tokens));
        for (Execution execution : kExecutions) {
          EXPECT_EQ(Run(0, layer.hidden_states, 0, tokens, execution), expected)
              << tokens << " tokens";
        }
        EXPECT_EQ(Run(1, layer.hidden_states, 0, tokens, Execution::kSparse),
                  expected)
            << tokens << " tokens";
      }
    }
  }
}

// Tokens need so many of the same neurons that backends compute for several at
// once; what token 0 does not need holds NaN.
TEST_F(BatchBitsTest, KeepRowsOfOtherTokensOut) {
  constexpr size_t kNeurons = 300;
  for (DataType dtype : TestBackend().weights_dtypes) {
    const TestLayer layer({130, kNeurons, dtype, Activation::kRelu, 0, 0.9}, 7,
                          seed_);
    const OracleResult expected = layer.Expected();
    TestLayer poisoned = layer;
    const std::vector<float> nan(130, std::numeric_limits<float>::quiet_NaN());
    for (size_t j = 0; j < kNeurons; ++j) {
      if (expected.active[j] != 0) continue;
      poisoned.up_proj.SetRow(j, nan);
      poisoned.down_proj.SetRow(j, nan);
    }
    MakeLane({&layer, &poisoned}, 7);
    const Bits alone = Run(0, layer.hidden_states, 0, 1, Execution::kSparse)[0];
    for (size_t tokens : {1, 2, 3, 4, 7}) {
      EXPECT_EQ(Run(1, layer.hidden_states, 0, tokens, Execution::kSparse)[0],
                alone)
          << DataTypeName(dtype) << ", " << tokens << " tokens";
    }
  }
}

// Token 0 needs neuron 0 alone, whose product underflows to -0; adding 0 times
// a weight of neuron 1 would make that 0.
TEST_F(BatchBitsTest, HaveOneKindOfZero) {
  TestLayer layer({2, 2, DataType::kBFloat16, Activation::kRelu, 0, 1}, 2,
                  seed_);
  layer.hidden_states.SetRow(0, {1, 0});
  layer.hidden_states.SetRow(1, {1, 1});
  layer.gate_proj.SetRow(0, {1e-20F, 1});
  layer.gate_proj.SetRow(1, {-1, 2});
  layer.up_proj.SetRow(0, {1e-20F, 1});
  layer.up_proj.SetRow(1, {1, 1});
  layer.down_proj.SetRow(0, {-1e-30F, 1});
  layer.down_proj.SetRow(1, {1, 1});
  MakeLane({&layer}, 2);
  for (size_t tokens : {1, 2}) {
    for (Execution execution : kExecutions) {
      const Bits row = Run(0, layer.hidden_states, 0, tokens, execution)[0];
      float first;
      std::memcpy(&first, row.data(), sizeof(first));
      EXPECT_EQ(first, 0);
      EXPECT_FALSE(std::signbit(first)) << tokens << " tokens";
    }
  }
}

}  // namespace
}  // namespace sparse_ffn
