// Deterministic backends: right, and to the bit the same whatever runs beside
// or before a token.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/conformance/backend_test.h"
#include "tests/conformance/test_backend.h"
#include "tests/conformance/test_layer.h"
#include "tests/sanitized.h"

namespace sparse_ffn {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr size_t kStates = 33;

// Rows of the second shape are aligned, of the first not.
std::vector<TestLayerShape> Shapes() {
  return {{300, 700, DataType::kBFloat16, Activation::kFatRelu, 0.01F, 0.2},
          {512, 1000, DataType::kFloat16, Activation::kRelu, 0, 0.1}};
}

// At the edges of the CUDA kernels' tiles: a last chunk and tile of columns
// that is not full, fewer neurons than multiprocessors, more of them than a
// block takes at once, rows that one multiprocessor block fills.
std::vector<TestLayerShape> EdgeShapes() {
  return {{1160, 11000, DataType::kBFloat16, Activation::kDRelu, 0, 0.1},
          {264, 100, DataType::kFloat16, Activation::kFatRelu, 0.01F, 0.5},
          {72, 20000, DataType::kBFloat16, Activation::kRelu, 0, 0.1},
          {5120, 400, DataType::kBFloat16, Activation::kRelu, 0, 0.1},
          {8192, 300, DataType::kFloat16, Activation::kRelu, 0, 0.2}};
}

// `tokens` rows from `first` on, around the end.
std::vector<size_t> Turned(size_t first, size_t tokens) {
  std::vector<size_t> rows(tokens);
  std::iota(rows.begin(), rows.end(), first);
  for (size_t& row : rows) row %= kStates;
  return rows;
}

class DeterministicTest : public BackendTest {
 protected:
  static FfnConfig ConfigOf(const TestLayerShape& shape, size_t max_tokens) {
    FfnConfig config = BackendTest::ConfigOf(shape, max_tokens);
    config.deterministic = true;
    return config;
  }

  // Layers 0, 1, ... are `layers`.
  static std::unique_ptr<FfnBackend> MakeBackend(
      const std::vector<const TestLayer*>& layers, size_t max_tokens,
      SparseForm form = SparseForm::kAuto) {
    return BackendTest::MakeBackend(ConfigOf(layers.front()->shape, max_tokens),
                                    layers, form);
  }

  // A batch of the named rows of `states`.
  static FfnResult Run(FfnLane& lane, int layer, const OwnedMatrix& states,
                       const std::vector<size_t>& rows, Execution execution) {
    const Matrix input = lane.input(rows.size());
    for (size_t i = 0; i < rows.size(); ++i) {
      std::memcpy(input.row(i), states.view().row(rows[i]), input.row_bytes());
    }
    absl::StatusOr<FfnResult> result = lane.Run(layer, rows.size(), execution);
    EXPECT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->stats.path, PathOf(execution));
    return *result;
  }

  // What each of the states gives by itself.
  static std::vector<Bits> Alone(FfnLane& lane, int layer,
                                 const OwnedMatrix& states,
                                 Execution execution) {
    std::vector<Bits> rows;
    for (size_t t = 0; t < states.view().rows; ++t) {
      rows.push_back(RowsOf(Run(lane, layer, states, {t}, execution)).front());
    }
    return rows;
  }

  // Sparse sums in steps are those of the portable backend alone.
  static FfnPath PathOf(Execution execution) {
    if (execution == Execution::kDense) return FfnPath::kDense;
    return TestBackend().sparse_forms.empty() ? FfnPath::kSparse
                                              : FfnPath::kFused;
  }

  static void ExpectResult(const FfnResult& result,
                           const OracleResult& expected, size_t tokens) {
    const bool rounds =
        TestBackend().rounds_gated && result.stats.path == FfnPath::kDense;
    const Comparison got =
        Compare(expected, 0, result.output,
                rounds ? GatedAs::kOneOfWeightsType : GatedAs::kFloat32);
    EXPECT_TRUE(got.passed) << "token " << got.worst_token << ", column "
                            << got.worst_column << ": error " << got.worst_error
                            << ", tolerance " << got.worst_tolerance;
    const std::vector<uint32_t> active(
        expected.active_neurons.begin(),
        expected.active_neurons.begin() + static_cast<ptrdiff_t>(tokens));
    EXPECT_EQ(std::vector<uint32_t>(result.stats.active_neurons.begin(),
                                    result.stats.active_neurons.end()),
              active);
    ExpectPasses(result.stats, expected, tokens);
    EXPECT_GT(result.stats.compute_ns, 0U);
  }

  // A backend whose tokens do not depend on each other takes all at once.
  static void ExpectPasses(const FfnStats& stats, const OracleResult& expected,
                           size_t tokens) {
    if (stats.passes.empty()) {
      EXPECT_EQ(stats.union_active_neurons, UnionOf(expected, 0, tokens));
      return;
    }
    EXPECT_FALSE(TestBackend().independent_of_batch);
    size_t first = 0;
    uint32_t most = 0;
    for (const FfnPass& pass : stats.passes) {
      ASSERT_LE(first + pass.tokens, tokens);
      EXPECT_EQ(pass.union_active_neurons,
                UnionOf(expected, first, pass.tokens));
      most = std::max(most, pass.union_active_neurons);
      first += pass.tokens;
    }
    EXPECT_EQ(first, tokens);
    EXPECT_EQ(stats.union_active_neurons, most);
  }

  // Batches of any size of any states through any layer, in each of which the
  // tokens keep the bits they have alone.
  static void ExpectBitsInRandomBatches(
      FfnLane& lane, const OwnedMatrix& states,
      const std::vector<std::vector<Bits>>& sparse,
      const std::vector<std::vector<Bits>>& dense, uint64_t seed) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < (kSanitized ? 10 : 120); ++i) {
      const size_t layer = random() % sparse.size();
      const Execution execution = kExecutions[random() % kExecutions.size()];
      const std::vector<size_t> rows =
          Turned(random() % kStates, 1 + random() % kStates);
      const std::vector<Bits> got =
          RowsOf(Run(lane, static_cast<int>(layer), states, rows, execution));
      const std::vector<Bits>& alone =
          (execution == Execution::kDense ? dense : sparse)[layer];
      for (size_t t = 0; t < rows.size(); ++t) {
        EXPECT_EQ(got[t], alone[rows[t]]) << i << ": token " << t;
      }
    }
  }
};

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
    for (size_t tokens : {1, 3}) {
      SCOPED_TRACE(testing::Message()
                   << shape.hidden_size << " x " << shape.intermediate_size
                   << ", " << tokens);
      ExpectResult(Run(*lane, 0, layer.hidden_states, Turned(0, tokens),
                       Execution::kSparse),
                   expected, tokens);
    }
  }
}

// Sparse batches of any size.
TEST_F(DeterministicTest, BitsAreThoseOfTheTokenAloneAtTheEdges) {
  for (const TestLayerShape& shape : EdgeShapes()) {
    const TestLayer layer(shape, kStates, seed_);
    const auto backend = MakeBackend({&layer}, kStates);
    const auto lane = backend->NewLane().value();
    const std::vector<Bits> alone =
        Alone(*lane, 0, layer.hidden_states, Execution::kSparse);
    for (size_t tokens = 2; tokens <= kStates; tokens += kSanitized ? 15 : 1) {
      const std::vector<size_t> rows = Turned(tokens, tokens);
      const std::vector<Bits> got =
          RowsOf(Run(*lane, 0, layer.hidden_states, rows, Execution::kSparse));
      for (size_t t = 0; t < tokens; ++t) {
        EXPECT_EQ(got[t], alone[rows[t]])
            << shape.hidden_size << " x " << shape.intermediate_size << ", "
            << tokens << " tokens: " << t;
      }
    }
  }
}

// Token by token the bits would be right, too: only the clock would tell.
TEST_F(DeterministicTest, SparseTokensRunAtOnce) {
  if (!TestBackend().pairs_independent) {
    GTEST_SKIP() << "no fused kernels for batches here";
  }
  const TestLayer layer(
      {1536, 3840, DataType::kBFloat16, Activation::kRelu, 0, 0.1}, kStates,
      seed_);
  const auto backend = MakeBackend({&layer}, kStates);
  const auto lane = backend->NewLane().value();
  const auto passes = [&](size_t tokens, Execution execution) {
    std::vector<uint32_t> sizes;
    const FfnResult result =
        Run(*lane, 0, layer.hidden_states, Turned(0, tokens), execution);
    for (const FfnPass& pass : result.stats.passes)
      sizes.push_back(pass.tokens);
    return sizes;
  };
  for (size_t tokens : {1, 2, 8, 9, 17, 32}) {
    EXPECT_THAT(passes(tokens, Execution::kSparse), IsEmpty()) << tokens;
  }
  EXPECT_THAT(passes(33, Execution::kAuto), ElementsAre(32, 1));
  EXPECT_THAT(passes(3, Execution::kDense), ElementsAre(1, 1, 1));
}

// Weights of neurons that are inactive for the first token, and active for
// others.
TEST_F(DeterministicTest, OtherTokensNaNStaysWithThem) {
  for (const TestLayerShape& shape : Shapes()) {
    const TestLayer layer(shape, kStates, seed_);
    TestLayer poisoned = layer;
    poisoned.PoisonInactive(layer.Expected(), 1);
    const auto backend = MakeBackend({&layer, &poisoned}, kStates);
    const auto lane = backend->NewLane().value();
    const Bits alone =
        RowsOf(Run(*lane, 0, layer.hidden_states, {0}, Execution::kSparse))
            .front();
    EXPECT_EQ(RowsOf(Run(*lane, 1, layer.hidden_states, Turned(0, kStates),
                         Execution::kSparse))
                  .front(),
              alone);
  }
}

TEST_F(DeterministicTest, RepeatsItself) {
  constexpr int kRuns = kSanitized ? 50 : 1000;
  for (const TestLayerShape& shape : Shapes()) {
    const TestLayer layer(shape, 1, seed_);
    const auto backend = MakeBackend({&layer}, 4);
    const auto lane = backend->NewLane().value();
    for (Execution execution : kExecutions) {
      const std::vector<Bits> first =
          Alone(*lane, 0, layer.hidden_states, execution);
      for (int i = 0; i < kRuns; ++i) {
        ASSERT_EQ(Alone(*lane, 0, layer.hidden_states, execution), first) << i;
      }
    }
  }
}

TEST_F(DeterministicTest, BitsAreThoseOfTheTokenAloneAtAnyPlace) {
  constexpr size_t kStep = kSanitized ? 11 : 1;
  for (const TestLayerShape& shape : Shapes()) {
    const TestLayer layer(shape, kStates, seed_);
    const auto backend = MakeBackend({&layer}, kStates);
    const auto lane = backend->NewLane().value();
    for (Execution execution : kExecutions) {
      const std::vector<Bits> alone =
          Alone(*lane, 0, layer.hidden_states, execution);
      for (size_t tokens : {2, 7, 33}) {
        for (size_t first = 0; first < kStates; first += kStep) {
          const std::vector<size_t> rows = Turned(first, tokens);
          const std::vector<Bits> got =
              RowsOf(Run(*lane, 0, layer.hidden_states, rows, execution));
          for (size_t t = 0; t < tokens; ++t) {
            EXPECT_EQ(got[t], alone[rows[t]]) << tokens << " tokens: " << t;
          }
        }
      }
    }
  }
}

// Also of another lane that runs at the same time. All neurons of layer 1 are
// active, which would draw kAuto to the dense path.
TEST_F(DeterministicTest, BitsDoNotDependOnWhatRanBefore) {
  for (TestLayerShape shape : Shapes()) {
    const TestLayer layer(shape, kStates, seed_);
    shape.density = 1;
    const TestLayer full(shape, 1, seed_ + 1);
    const auto backend = MakeBackend({&layer, &full}, kStates);
    const auto lane = backend->NewLane().value();
    const auto other = backend->NewLane().value();
    std::vector<std::vector<Bits>> sparse;
    std::vector<std::vector<Bits>> dense;
    for (int i : {0, 1}) {
      const OwnedMatrix& states = layer.hidden_states;
      sparse.push_back(Alone(*lane, i, states, Execution::kSparse));
      dense.push_back(Alone(*lane, i, states, Execution::kDense));
    }
    std::thread beside([&] {
      ExpectBitsInRandomBatches(*other, layer.hidden_states, sparse, dense,
                                seed_);
    });
    ExpectBitsInRandomBatches(*lane, layer.hidden_states, sparse, dense,
                              seed_ + 1);
    beside.join();
  }
}

TEST_F(DeterministicTest, BitsDoNotDependOnTheLargestBatch) {
  for (const TestLayerShape& shape : Shapes()) {
    const TestLayer layer(shape, kStates, seed_);
    for (Execution execution : kExecutions) {
      std::vector<std::vector<Bits>> alone;
      for (size_t max_tokens : {1, 5, 300}) {
        const auto backend = MakeBackend({&layer}, max_tokens);
        const auto lane = backend->NewLane().value();
        alone.push_back(Alone(*lane, 0, layer.hidden_states, execution));
      }
      EXPECT_THAT(alone, Each(alone.front()));
    }
  }
}

TEST_F(DeterministicTest, BitsDoNotDependOnTheThreads) {
  if (std::string(TestBackend().name) != "cpu") GTEST_SKIP() << "has none";
  for (const TestLayerShape& shape : Shapes()) {
    const TestLayer layer(shape, kStates, seed_);
    for (Execution execution : kExecutions) {
      std::vector<std::vector<Bits>> alone;
      for (int threads : {1, 2, 3, 7}) {
        const auto backend =
            NewCpuBackend(ConfigOf(shape, kStates), threads).value();
        ASSERT_TRUE(backend->AddLayer(0, layer.weights()).ok());
        const auto lane = backend->NewLane().value();
        alone.push_back(Alone(*lane, 0, layer.hidden_states, execution));
      }
      EXPECT_THAT(alone, Each(alone.front()));
    }
  }
}

TEST_F(DeterministicTest, TakesTheFormsThatRepeatThemselves) {
  for (const TestLayerShape& shape : Shapes()) {
    const TestLayer layer(shape, kStates, seed_);
    for (SparseForm form : TestBackend().sparse_forms) {
      if (form == SparseForm::kSteps) {
        EXPECT_EQ(NewTestBackend(ConfigOf(shape, 1), form).status().code(),
                  absl::StatusCode::kInvalidArgument);
        continue;
      }
      const auto backend = MakeBackend({&layer}, kStates, form);
      const auto lane = backend->NewLane().value();
      const std::vector<Bits> alone =
          Alone(*lane, 0, layer.hidden_states, Execution::kSparse);
      for (int i = 0; i < 20; ++i) {
        EXPECT_EQ(RowsOf(Run(*lane, 0, layer.hidden_states, Turned(0, kStates),
                             Execution::kSparse)),
                  alone);
      }
    }
  }
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
