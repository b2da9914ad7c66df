// What the tests of deterministic backends have in common.
#ifndef SPARSE_FFN_TESTS_CONFORMANCE_DETERMINISTIC_TEST_H_
#define SPARSE_FFN_TESTS_CONFORMANCE_DETERMINISTIC_TEST_H_

#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/conformance/backend_test.h"
#include "tests/conformance/test_backend.h"
#include "tests/conformance/test_layer.h"
#include "tests/sanitized.h"

namespace sparse_ffn {

class DeterministicTest : public BackendTest {
 protected:
  static constexpr size_t kStates = 33;

  // Rows of the first shape are not aligned; those of the last are long enough
  // for CUDA blocks to share them.
  static std::vector<TestLayerShape> Shapes() {
    return {{300, 700, DataType::kBFloat16, Activation::kFatRelu, 0.01F, 0.2},
            {512, 1000, DataType::kFloat16, Activation::kRelu, 0, 0.1},
            {2048, 600, DataType::kBFloat16, Activation::kDRelu, 0, 0.1}};
  }

  // At the edges of the CUDA kernels' tiles: a last chunk, sweep and tile of
  // columns that is not full, fewer neurons than multiprocessors, more of them
  // than a block takes at once, rows that fill the registers of the kernel that
  // streams them, and a pack more; several tiles of rows that two blocks share;
  // rows of the output that no load or store of several elements may begin
  // with. Under a sanitizer, where those kernels do not run, two of the smaller
  // ones.
  static std::vector<TestLayerShape> EdgeShapes() {
    std::vector<TestLayerShape> shapes = {
        {1032, 11000, DataType::kBFloat16, Activation::kDRelu, 0, 0.1},
        {1032, 17000, DataType::kFloat16, Activation::kRelu, 0, 0.1},
        {2056, 9000, DataType::kBFloat16, Activation::kDRelu, 0, 0.1},
        {264, 100, DataType::kFloat16, Activation::kFatRelu, 0.01F, 0.5},
        {72, 20000, DataType::kBFloat16, Activation::kRelu, 0, 0.1},
        {5120, 400, DataType::kBFloat16, Activation::kRelu, 0, 0.1},
        {8192, 300, DataType::kFloat16, Activation::kRelu, 0, 0.2},
        {3080, 400, DataType::kBFloat16, Activation::kFatRelu, 0.01F, 0.1},
        {4104, 300, DataType::kFloat16, Activation::kDRelu, 0, 0.2},
        {5128, 300, DataType::kBFloat16, Activation::kRelu, 0, 0.2},
        {1568, 300, DataType::kBFloat16, Activation::kRelu, 0, 0.2},
        {5152, 300, DataType::kFloat16, Activation::kRelu, 0, 0.2},
        {5160, 300, DataType::kBFloat16, Activation::kRelu, 0, 0.2},
        {130, 300, DataType::kBFloat16, Activation::kRelu, 0, 0.2},
        {7, 5, DataType::kFloat16, Activation::kDRelu, 0, 0.5}};
    if (kSanitized) return {shapes[3], shapes[5], shapes.back()};
    return shapes;
  }

  // `tokens` rows from `first` on, around the end.
  static std::vector<size_t> Turned(size_t first, size_t tokens) {
    std::vector<size_t> rows(tokens);
    std::iota(rows.begin(), rows.end(), first);
    for (size_t& row : rows) row %= kStates;
    return rows;
  }

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

  // `expected` begins with the tokens of the batch.
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
    ExpectUnion(result.stats, expected, 0, tokens);
    if (TestBackend().independent_of_batch) {
      EXPECT_TRUE(result.stats.passes.empty());
    }
    EXPECT_GT(result.stats.compute_ns, 0U);
  }

  // Sparse sums in steps are those of the portable backend alone.
  static FfnPath PathOf(Execution execution) {
    if (execution == Execution::kDense) return FfnPath::kDense;
    return TestBackend().sparse_forms.empty() ? FfnPath::kSparse
                                              : FfnPath::kFused;
  }
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_TESTS_CONFORMANCE_DETERMINISTIC_TEST_H_
