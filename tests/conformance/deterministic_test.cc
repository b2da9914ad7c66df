// Deterministic backends: the same as the float64 oracle, the passes that they
// tell of, nothing measured, and what they refuse.
#include "tests/conformance/deterministic_test.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace sparse_ffn {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// Layer 1 holds NaN where the sparse path must not read.
TEST_F(DeterministicTest, MatchesOracle) {
  for (TestLayerShape shape : Shapes()) {
    for (double density : {0.0, 0.1, 1.0}) {
      shape.density = density;
      const TestLayer layer(shape, kStates, seed_);
      const OracleResult expected = layer.Expected();
      TestLayer poisoned = layer;
      poisoned.PoisonInactive(expected, kStates);
      const auto backend = MakeBackend({&layer, &poisoned}, kStates);
      const auto lane = backend->NewLane().value();
      for (size_t tokens : {33, 1, 2, 7}) {
        for (Execution execution : kExecutions) {
          SCOPED_TRACE(testing::Message() << density << ", " << tokens);
          ExpectResult(Run(*lane, execution == Execution::kDense ? 0 : 1,
                           layer.hidden_states, Turned(0, tokens), execution),
                       expected, tokens);
        }
      }
    }
  }
}

TEST_F(DeterministicTest, MatchesOracleAtTheEdges) {
  constexpr size_t kTokens = 3;
  for (const TestLayerShape& shape : EdgeShapes()) {
    const TestLayer layer(shape, kTokens, seed_);
    const OracleResult expected = layer.Expected();
    const auto backend = MakeBackend({&layer}, kTokens);
    const auto lane = backend->NewLane().value();
    for (size_t tokens : {1, 2, 3}) {
      SCOPED_TRACE(testing::Message()
                   << shape.hidden_size << " x " << shape.intermediate_size
                   << ", " << tokens);
      ExpectResult(Run(*lane, 0, layer.hidden_states, Turned(0, tokens),
                       Execution::kSparse),
                   expected, tokens);
    }
  }
}

// Token by token the bits would be right, too: only the clock would tell.
TEST_F(DeterministicTest, TokensRunAtOnce) {
  if (!TestBackend().fuses_batches) {
    GTEST_SKIP() << "no fused kernels for batches here";
  }
  const TestLayer layer(
      {1536, 3840, DataType::kBFloat16, Activation::kRelu, 0, 0.1}, kStates,
      seed_);
  const auto backend = MakeBackend({&layer}, 100);
  const auto lane = backend->NewLane().value();
  const auto passes = [&](size_t tokens, Execution execution) {
    return PassTokens(
        Run(*lane, 0, layer.hidden_states, Turned(0, tokens), execution).stats);
  };
  for (size_t tokens : {1, 2, 8, 9, 17, 32}) {
    EXPECT_THAT(passes(tokens, Execution::kSparse), IsEmpty()) << tokens;
  }
  EXPECT_THAT(passes(33, Execution::kAuto), ElementsAre(32, 1));
  EXPECT_THAT(passes(66, Execution::kAuto), ElementsAre(32, 32, 2));
  EXPECT_THAT(passes(100, Execution::kSparse), ElementsAre(32, 32, 32, 4));
}

TEST_F(DeterministicTest, HasNothingToMeasure) {
  const TestLayer layer({}, 1, seed_);
  const auto backend = MakeBackend({&layer}, 40);
  const auto costs = backend->MeasurePaths(1, [] { ADD_FAILURE(); });
  ASSERT_TRUE(costs.ok()) << costs.status();
  EXPECT_TRUE(costs->empty());
  EXPECT_EQ(backend->SparseUpTo(1), 1);
  EXPECT_EQ(backend->SparseUpTo(40), 1);
  if (TestBackend().sparse_forms.empty()) return;
  EXPECT_EQ(backend->SetPathCosts({}).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(DeterministicTest, RefusesWhatIsNotThere) {
  const TestLayer layer({}, 1, seed_);
  const auto backend = MakeBackend({&layer}, 4);
  const auto lane = backend->NewLane().value();
  for (int missing : {1, -1, 1 << 30}) {
    EXPECT_EQ(lane->Run(missing, 1, Execution::kAuto).status().code(),
              absl::StatusCode::kNotFound);
  }
  for (size_t tokens : {size_t{0}, size_t{5}, SIZE_MAX}) {
    EXPECT_EQ(lane->Run(0, tokens, Execution::kAuto).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(lane->Run(0, 4, Execution::kAuto).ok());
}

}  // namespace
}  // namespace sparse_ffn
