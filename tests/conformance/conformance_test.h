// What the tests against the float64 oracle have in common.
#ifndef SPARSE_FFN_TESTS_CONFORMANCE_CONFORMANCE_TEST_H_
#define SPARSE_FFN_TESTS_CONFORMANCE_CONFORMANCE_TEST_H_

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "tests/conformance/backend_test.h"
#include "tests/conformance/test_backend.h"
#include "tests/conformance/test_layer.h"

namespace sparse_ffn {

// An activation with its threshold.
struct Sigma {
  Activation activation;
  float threshold;
};
inline constexpr std::array<Sigma, 4> kSigmas = {{{Activation::kRelu, 0},
                                                  {Activation::kFatRelu, 0.01F},
                                                  {Activation::kFatRelu, 0.7F},
                                                  {Activation::kDRelu, 0}}};

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
    ExpectUnion(stats, expected, 0, tokens);
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

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_TESTS_CONFORMANCE_CONFORMANCE_TEST_H_
