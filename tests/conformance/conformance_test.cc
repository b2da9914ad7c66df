// What every backend must compute: the same as the float64 oracle, to within
// what float32 sums explain.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <ostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/conformance/backend_test.h"
#include "tests/conformance/test_backend.h"
#include "tests/conformance/test_layer.h"
#include "tests/sanitized.h"

namespace sparse_ffn {
namespace {

constexpr std::array<Execution, 3> kExecutions = {
    Execution::kAuto, Execution::kSparse, Execution::kDense};

// A backend with its layers and one lane.
struct Bench {
  std::unique_ptr<FfnBackend> backend;
  std::unique_ptr<FfnLane> lane;
};

class ConformanceTest : public BackendTest {
 protected:
  // Layers 0, 1, ... are `layers`.
  static Bench MakeBench(const std::vector<const TestLayer*>& layers,
                         size_t max_tokens,
                         SparseForm form = SparseForm::kAuto) {
    Bench bench;
    bench.backend =
        MakeBackend(ConfigOf(layers.front()->shape, max_tokens), layers, form);
    bench.lane = bench.backend->NewLane().value();
    return bench;
  }

  // Runs the first `tokens` rows of `states`.
  static FfnResult Run(FfnLane& lane, int layer, const OwnedMatrix& states,
                       size_t tokens, Execution execution) {
    const Matrix input = lane.input(tokens);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(input.data) % 64, 0U);
    EXPECT_EQ(input.rows, tokens);
    EXPECT_EQ(input.cols, states.view().cols);
    std::memcpy(input.data, states.view().data, input.bytes());
    absl::StatusOr<FfnResult> result = lane.Run(layer, tokens, execution);
    EXPECT_TRUE(result.ok()) << result.status();
    return *result;
  }

  // `expected` begins with the tokens of the batch.
  static void ExpectResult(const FfnResult& result,
                           const OracleResult& expected, size_t tokens,
                           Execution execution) {
    const FfnStats& stats = result.stats;
    if (execution != Execution::kAuto) {
      EXPECT_EQ(stats.path == FfnPath::kDense, execution == Execution::kDense);
    }
    ASSERT_EQ(result.output.rows, tokens);
    ASSERT_EQ(result.output.cols, expected.hidden_size);
    ASSERT_EQ(result.output.dtype, DataType::kFloat32);
    const Comparison got =
        Compare(expected, 0, result.output, Gated(stats, tokens));
    EXPECT_TRUE(got.passed)
        << FfnPathName(stats.path) << ": token " << got.worst_token
        << ", column " << got.worst_column << ": error " << got.worst_error
        << ", tolerance " << got.worst_tolerance << "; " << got.misses
        << " misses";
    ASSERT_EQ(stats.active_neurons.size(), tokens);
    for (size_t t = 0; t < tokens; ++t) {
      EXPECT_EQ(stats.active_neurons[t], expected.active_neurons[t]) << t;
    }
    EXPECT_EQ(stats.union_active_neurons, UnionOf(expected, tokens));
    EXPECT_GT(stats.compute_ns, 0U);
  }

  static GatedAs Gated(const FfnStats& stats, size_t tokens) {
    if (!TestBackend().rounds_gated) return GatedAs::kFloat32;
    if (stats.path == FfnPath::kDense) return GatedAs::kOneOfWeightsType;
    return tokens > 1 ? GatedAs::kTwoOfWeightsType : GatedAs::kFloat32;
  }

  static FfnPath PathOf(SparseForm form) {
    return form == SparseForm::kSteps ? FfnPath::kSparse : FfnPath::kFused;
  }
};

struct Case {
  size_t hidden_size;
  size_t intermediate_size;
  DataType dtype;
  Activation activation;
  float threshold;
  double density;
  std::vector<size_t> token_counts;  // The last one is the largest.
};

TestLayerShape ShapeOf(const Case& c) {
  return {c.hidden_size, c.intermediate_size, c.dtype,
          c.activation,  c.threshold,         c.density};
}

std::string CaseName(const Case& c) {
  return std::to_string(c.hidden_size) + "x" +
         std::to_string(c.intermediate_size) + "_" + DataTypeName(c.dtype) +
         "_" + ActivationName(c.activation) +
         std::to_string(std::lround(c.threshold * 1000)) + "_density" +
         std::to_string(std::lround(c.density * 100));
}

void PrintTo(const Case& c, std::ostream* out) { *out << CaseName(c); }

class OracleConformanceTest : public ConformanceTest,
                              public testing::WithParamInterface<Case> {};

// Layer 1 holds NaN where the sparse path must not read. All token counts go
// through one lane, large ones before small ones and after.
TEST_P(OracleConformanceTest, MatchesOracle) {
  const Case& c = GetParam();
  const size_t max_tokens = c.token_counts.back();
  const TestLayer layer(ShapeOf(c), max_tokens, seed_);
  const OracleResult expected = layer.Expected();
  TestLayer poisoned = layer;
  const uint32_t left = poisoned.PoisonInactive(expected, max_tokens);
  if (c.density == 0) {
    EXPECT_EQ(left, 0U);
  }
  const Bench bench = MakeBench({&layer, &poisoned}, max_tokens);
  std::vector<size_t> token_counts = {max_tokens};
  token_counts.insert(token_counts.end(), c.token_counts.begin(),
                      c.token_counts.end());
  for (size_t tokens : token_counts) {
    for (Execution execution : kExecutions) {
      SCOPED_TRACE(testing::Message() << tokens << " tokens");
      const int index = execution == Execution::kSparse ? 1 : 0;
      ExpectResult(
          Run(*bench.lane, index, layer.hidden_states, tokens, execution),
          expected, tokens, execution);
    }
  }
  for (size_t t = 0; t < max_tokens; ++t) {
    EXPECT_EQ(expected.borderline_neurons[t], 0U);
  }
}

// Each form, with batches of one token between those of more. Layer 1 holds NaN
// where one token must not read.
TEST_P(OracleConformanceTest, MatchesOracleInEachForm) {
  // The portable backend has one form, which MatchesOracle tests.
  if (TestBackend().sparse_forms.empty()) return;
  const Case& c = GetParam();
  const size_t max_tokens = std::min<size_t>(c.token_counts.back(), 33);
  const TestLayer layer(ShapeOf(c), max_tokens, seed_);
  const OracleResult expected = layer.Expected();
  TestLayer poisoned = layer;
  poisoned.PoisonInactive(expected, 1);
  for (SparseForm form : TestBackend().sparse_forms) {
    SCOPED_TRACE(testing::Message() << "form " << static_cast<int>(form));
    const Bench bench = MakeBench({&layer, &poisoned}, max_tokens, form);
    for (size_t tokens : {1, 1, 2, 8, 1, 9, 32, 3, 17, 33, 16, 1}) {
      if (tokens > max_tokens) continue;
      SCOPED_TRACE(testing::Message() << tokens << " tokens");
      const FfnResult result =
          Run(*bench.lane, tokens == 1 ? 1 : 0, layer.hidden_states, tokens,
              Execution::kSparse);
      ExpectResult(result, expected, tokens, Execution::kSparse);
      if (tokens == 1 || form == SparseForm::kSteps) {
        EXPECT_EQ(result.stats.path, PathOf(form));
      }
    }
  }
}

struct Sigma {
  Activation activation;
  float threshold;
};
constexpr std::array<Sigma, 4> kSigmas = {{{Activation::kRelu, 0},
                                           {Activation::kFatRelu, 0.01F},
                                           {Activation::kFatRelu, 0.7F},
                                           {Activation::kDRelu, 0}}};
constexpr std::array<double, 5> kDensities = {0, 0.02, 0.11, 0.5, 1};

// Small sizes: everything with everything. Larger ones: in turn.
std::vector<Case> Cases() {
  const std::vector<size_t> counts = {1, 2, 3, 7, 8, 9, 16, 17, 33, 64};
  std::vector<Case> cases;
  size_t turn = 0;
  for (DataType dtype : TestBackend().weights_dtypes) {
    for (const Sigma& s : kSigmas) {
      for (double density : kDensities) {
        for (auto [hidden, neurons] :
             {std::pair(1, 1), std::pair(7, 5), std::pair(64, 128),
              std::pair(129, 257)}) {
          cases.push_back({static_cast<size_t>(hidden),
                           static_cast<size_t>(neurons), dtype, s.activation,
                           s.threshold, density, counts});
        }
      }
      cases.push_back({512, 1000, dtype, s.activation, s.threshold,
                       kDensities[turn++ % kDensities.size()], counts});
    }
    if (kSanitized && dtype != DataType::kBFloat16) continue;
    cases.push_back({1536,
                     3840,
                     dtype,
                     kSigmas[turn % 4].activation,
                     kSigmas[turn % 4].threshold,
                     0.12,
                     {1, 8, 17}});
  }
  if (!kSanitized) {
    cases.push_back({4096,
                     11008,
                     DataType::kBFloat16,
                     Activation::kFatRelu,
                     0.01F,
                     0.107,
                     {1, 3}});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Shapes, OracleConformanceTest,
                         testing::ValuesIn(Cases()),
                         [](const testing::TestParamInfo<Case>& p) {
                           return CaseName(p.param);
                         });

TEST_F(ConformanceTest, ReadsOnlyRowsThatThisBatchNeeds) {
  for (DataType dtype : TestBackend().weights_dtypes) {
    for (size_t tokens : {1, 2, 7, 33}) {
      const TestLayer layer({200, 900, dtype, Activation::kFatRelu, 0.3F, 0.05},
                            tokens, seed_);
      const OracleResult expected = layer.Expected();
      TestLayer poisoned = layer;
      const uint32_t left = poisoned.PoisonInactive(expected, tokens);
      EXPECT_EQ(left, UnionOf(expected, tokens));
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
// promises less (launch.h).
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

TEST_F(ConformanceTest, DescribesItself) {
  const TestLayer layer(
      {32, 48, DataType::kBFloat16, Activation::kRelu, 0, 0.5}, 1, seed_);
  const Bench bench = MakeBench({&layer, &layer}, 4);
  EXPECT_STREQ(bench.backend->name(), TestBackend().name);
  EXPECT_FALSE(bench.backend->device_name().empty());
  EXPECT_EQ(bench.backend->weights_bytes(), 2U * 3 * 32 * 48 * 2);
}

TEST_F(ConformanceTest, RunRefusesWhatIsNotThere) {
  const TestLayer layer({}, 1, seed_);
  const Bench bench = MakeBench({&layer}, 4);
  for (int missing : {1, -1, 1 << 30}) {
    EXPECT_EQ(bench.lane->Run(missing, 1, Execution::kAuto).status().code(),
              absl::StatusCode::kNotFound);
  }
  for (size_t tokens : {size_t{0}, size_t{5}, SIZE_MAX}) {
    EXPECT_EQ(bench.lane->Run(0, tokens, Execution::kAuto).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(bench.lane->Run(0, 4, Execution::kAuto).ok());
}

TEST_F(ConformanceTest, AddLayerRefusesWhatDoesNotFit) {
  const TestLayerShape shape = {6, 10, DataType::kBFloat16};
  const TestLayer layer(shape, 1, seed_);
  const OwnedMatrix narrow(10, 5, DataType::kBFloat16);
  const OwnedMatrix turned(6, 10, DataType::kBFloat16);
  const OwnedMatrix wide_type(10, 6, DataType::kFloat32);
  ConstMatrix no_data = layer.up_proj.view();
  no_data.data = nullptr;
  const auto backend = NewTestBackend(ConfigOf(shape, 1)).value();
  for (ConstMatrix wrong :
       {narrow.view(), turned.view(), wide_type.view(), no_data}) {
    for (int which = 0; which < 3; ++which) {
      FfnWeights weights = layer.weights();
      (which == 0   ? weights.gate_proj
       : which == 1 ? weights.up_proj
                    : weights.down_proj) = wrong;
      EXPECT_EQ(backend->AddLayer(0, weights).code(),
                absl::StatusCode::kInvalidArgument);
    }
  }
  EXPECT_EQ(backend->weights_bytes(), 0U);
  EXPECT_TRUE(backend->AddLayer(0, layer.weights()).ok());
  EXPECT_EQ(backend->AddLayer(0, layer.weights()).code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(backend->AddLayer(7, layer.weights()).ok());
}

TEST_F(ConformanceTest, RefusesBadConfigs) {
  const FfnConfig good = ConfigOf({}, 1);
  std::vector<FfnConfig> bad(8, good);
  bad[0].hidden_size = 0;
  bad[1].intermediate_size = 0;
  bad[2].max_batch_tokens = 0;
  bad[3].hidden_size = SIZE_MAX / 2;
  bad[4].activation = Activation::kFatRelu;
  bad[4].threshold = std::numeric_limits<float>::quiet_NaN();
  bad[5].activation = Activation::kFatRelu;
  bad[5].threshold = -0.5F;
  bad[6].threshold = 0.5F;  // With relu.
  bad[7].intermediate_size = size_t{1} << 20;
  bad[7].max_batch_tokens = size_t{1} << 12;
  for (size_t i = 0; i < bad.size(); ++i) {
    EXPECT_EQ(NewTestBackend(bad[i]).status().code(),
              absl::StatusCode::kInvalidArgument)
        << i;
  }
  FfnConfig huge = good;
  huge.hidden_size = size_t{1} << 20;
  huge.intermediate_size = size_t{1} << 24;
  huge.num_layers = 80;
  EXPECT_EQ(NewTestBackend(huge).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace sparse_ffn
