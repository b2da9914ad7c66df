// Random layers and hidden states whose neurons are active as often as asked.
#ifndef SPARSE_FFN_TESTS_CONFORMANCE_TEST_LAYER_H_
#define SPARSE_FFN_TESTS_CONFORMANCE_TEST_LAYER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "client/cli/oracle.h"
#include "kernels/ffn_backend.h"
#include "kernels/matrix.h"

namespace sparse_ffn {

// A matrix with its elements.
class OwnedMatrix {
 public:
  OwnedMatrix(size_t rows, size_t cols, DataType dtype)
      : rows_(rows), cols_(cols), dtype_(dtype), data_(view().bytes()) {}

  Matrix view() {
    return {data_.empty() ? nullptr : data_.data(), rows_, cols_, dtype_};
  }
  ConstMatrix view() const { return {data_.data(), rows_, cols_, dtype_}; }

  // Rounds `values` [cols] into row `row`.
  void SetRow(size_t row, const std::vector<float>& values);
  std::vector<float> Row(size_t row) const;
  OwnedMatrix Transposed() const;

 private:
  size_t rows_;
  size_t cols_;
  DataType dtype_;
  std::vector<uint8_t> data_;
};

struct TestLayerShape {
  size_t hidden_size = 1;
  size_t intermediate_size = 1;
  DataType dtype = DataType::kBFloat16;
  Activation activation = Activation::kRelu;
  float threshold = 0;
  // Share of neurons to be active for a token: 0 and 1 are met exactly, others
  // nearly.
  double density = 0.11;
};

// One layer and hidden states to go with it. No score is near the threshold.
struct TestLayer {
  // [tokens, hidden_size] hidden states.
  TestLayer(const TestLayerShape& shape, size_t tokens, uint64_t seed);

  FfnWeights weights() const {
    return {gate_proj.view(), up_proj.view(), down_proj.view()};
  }
  // What the layer gives for all tokens.
  OracleResult Expected() const;
  OracleResult Expected(const OwnedMatrix& states) const;
  // Writes NaN over the up and down rows of neurons that are active for none
  // of the first `tokens`; returns how many are left.
  uint32_t PoisonInactive(const OracleResult& expected, size_t tokens);

  TestLayerShape shape;
  OwnedMatrix gate_proj;
  OwnedMatrix up_proj;
  OwnedMatrix down_proj;
  OwnedMatrix hidden_states;
};

// Neurons active for at least one of `tokens` tokens, from `first` on.
uint32_t UnionOf(const OracleResult& expected, size_t first, size_t tokens);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_TESTS_CONFORMANCE_TEST_LAYER_H_
