// What every backend must compute: the same as the float64 oracle, to within
// what float32 sums explain.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "tests/conformance/conformance_test.h"
#include "tests/conformance/test_backend.h"
#include "tests/conformance/test_layer.h"
#include "tests/sanitized.h"

namespace sparse_ffn {
namespace {

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
  const size_t max_tokens = std::min<size_t>(c.token_counts.back(), 64);
  const TestLayer layer(ShapeOf(c), max_tokens, seed_);
  const OracleResult expected = layer.Expected();
  TestLayer poisoned = layer;
  poisoned.PoisonInactive(expected, 1);
  for (SparseForm form : TestBackend().sparse_forms) {
    SCOPED_TRACE(testing::Message() << "form " << static_cast<int>(form));
    const Bench bench = MakeBench({&layer, &poisoned}, max_tokens, form);
    for (size_t tokens : {1, 1, 2, 8, 1, 9, 32, 3, 17, 33, 64, 16, 41, 1}) {
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

constexpr std::array<double, 5> kDensities = {0, 0.02, 0.11, 0.5, 1};

// Small sizes: everything with everything. Larger ones: in turn.
std::vector<Case> Cases() {
  const std::vector<size_t> counts = {1, 2, 3, 7, 8, 9, 16, 17, 33, 64};
  const std::vector<size_t> few = {1, 8, 17, 33};
  std::vector<Case> cases;
  size_t turn = 0;
  for (DataType dtype : TestBackend().weights_dtypes) {
    for (const Sigma& s : kSigmas) {
      for (double density : kDensities) {
        for (auto [hidden, neurons] :
             {std::pair(1, 1), std::pair(7, 5), std::pair(8, 1),
              std::pair(8, 3), std::pair(64, 128), std::pair(129, 257)}) {
          cases.push_back({static_cast<size_t>(hidden),
                           static_cast<size_t>(neurons), dtype, s.activation,
                           s.threshold, density, counts});
        }
      }
      cases.push_back({512, 1000, dtype, s.activation, s.threshold,
                       kDensities[turn++ % kDensities.size()],
                       kSanitized ? few : counts});
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
    // One token that needs every neuron: several rounds of rows.
    cases.push_back(
        {4096, 11008, DataType::kBFloat16, Activation::kRelu, 0, 1, {1}});
    cases.push_back(
        {8192, 3000, DataType::kFloat16, Activation::kDRelu, 0, 1, {1}});
    cases.push_back(
        {5120, 3000, DataType::kBFloat16, Activation::kRelu, 0, 1, {1}});
    // More neurons, and active ones, than a block has threads for: several
    // rounds of step 1, and of step 2.
    cases.push_back(
        {64, 100000, DataType::kBFloat16, Activation::kRelu, 0, 0.12, {1}});
    cases.push_back(
        {8, 100000, DataType::kFloat16, Activation::kDRelu, 0, 1, {1}});
    // Batches whose rows fill the registers that a kernel has for them, and one
    // pack more; on 132 multiprocessors, blocks of 8 and of 9 rows, of which 8
    // are a tile. And, from 17 tokens on, the shortest rows that two blocks
    // share and the longest, of which three tiles fit.
    for (size_t hidden :
         {1568, 1576, 2040, 2048, 4256, 4264, 4576, 4584, 5152, 5160}) {
      cases.push_back({hidden,
                       1100,
                       DataType::kBFloat16,
                       Activation::kDRelu,
                       0,
                       0.11,
                       {3, 8, 9, 16, 17, 32}});
    }
    // Batches whose rows two blocks share, of which one has a row more, with no
    // active rows and with all of them.
    for (double density : {0.0, 1.0}) {
      cases.push_back({2048,
                       265,
                       DataType::kBFloat16,
                       Activation::kRelu,
                       0,
                       density,
                       {17, 31, 32}});
    }
    // Results of less than 1 MB and of more, which a GPU's lane copies out in
    // two ways.
    cases.push_back({4096,
                     64,
                     DataType::kBFloat16,
                     Activation::kRelu,
                     0,
                     0.2,
                     {1, 16, 63, 64}});
    // Several tiles of rows, of gate and up, through a ring of two and of
    // three.
    cases.push_back({5120,
                     6000,
                     DataType::kFloat16,
                     Activation::kFatRelu,
                     0.01F,
                     0.107,
                     {9, 15}});
    cases.push_back(
        {4096, 3000, DataType::kBFloat16, Activation::kRelu, 0, 1, {7, 16}});
    // As many rows as a block of such a batch takes there, all active, and
    // more.
    for (size_t neurons : {67584, 68000}) {
      cases.push_back(
          {64, neurons, DataType::kBFloat16, Activation::kRelu, 0, 1, {4, 12}});
    }
    // The longest rows that a kernel has registers for, and others near them.
    for (size_t hidden : {5120, 5128, 6152, 8192, 8200}) {
      cases.push_back({hidden,
                       600,
                       DataType::kFloat16,
                       Activation::kDRelu,
                       0,
                       0.11,
                       {1, 2, 8}});
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Shapes, OracleConformanceTest,
                         testing::ValuesIn(Cases()),
                         [](const testing::TestParamInfo<Case>& p) {
                           return CaseName(p.param);
                         });

}  // namespace
}  // namespace sparse_ffn
