#include "tests/conformance/test_layer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <stdexcept>

namespace sparse_ffn {
namespace {

// Scores keep this far from the threshold; their spread is 1.
constexpr double kMargin = 2e-3;
constexpr int kMaxTries = 1000;

// Uniform with mean 0 and standard deviation `deviation`.
void FillRandom(std::mt19937_64& random, float deviation,
                std::vector<float>* values) {
  for (float& value : *values) {
    // Upper 24 bits, as a number in [-1, 1).
    const auto unit = static_cast<float>(random() >> 40) * 0x1p-23F - 1;
    value = unit * deviation * std::sqrt(3.0F);
  }
}

void FillRows(std::mt19937_64& random, float deviation, OwnedMatrix* matrix) {
  std::vector<float> row(matrix->view().cols);
  for (size_t i = 0; i < matrix->view().rows; ++i) {
    FillRandom(random, deviation, &row);
    matrix->SetRow(i, row);
  }
}

// Score that a share `density` of standard normal numbers exceed, negated.
double BiasFor(double density) {
  if (density <= 0) return -20;
  if (density >= 1) return 20;
  double low = -8;
  double high = 8;
  while (high - low > 1e-6) {
    const double middle = (low + high) / 2;
    (std::erfc(-middle / std::sqrt(2.0)) / 2 < density ? low : high) = middle;
  }
  return low;
}

bool KeepsMargin(const std::vector<float>& gate,
                 const std::vector<std::vector<float>>& states,
                 double threshold) {
  return std::all_of(states.begin(), states.end(),
                     [&](const std::vector<float>& x) {
                       const double score = std::inner_product(
                           x.begin(), x.end(), gate.begin(), 0.0, std::plus<>(),
                           [](double a, double b) { return a * b; });
                       return std::abs(score - threshold) > kMargin;
                     });
}

// The first column of the hidden states is 1, so that the first column of the
// gate shifts all scores of a neuron.
void FillGate(std::mt19937_64& random, TestLayer* layer) {
  const TestLayerShape& shape = layer->shape;
  std::vector<std::vector<float>> states;
  for (size_t t = 0; t < layer->hidden_states.view().rows; ++t) {
    states.push_back(layer->hidden_states.Row(t));
  }
  const float deviation =
      1 / std::sqrt(static_cast<float>(std::max<size_t>(shape.hidden_size, 2)));
  std::vector<float> row(shape.hidden_size);
  std::normal_distribution<double> normal;
  for (size_t j = 0; j < shape.intermediate_size; ++j) {
    int tries = 0;
    do {
      if (++tries > kMaxTries) throw std::runtime_error("no gate row fits");
      FillRandom(random, deviation, &row);
      // Where there is no other column, the shift itself is random.
      const double own = shape.hidden_size == 1 ? normal(random) : 0;
      row[0] =
          static_cast<float>(shape.threshold + BiasFor(shape.density) + own);
      layer->gate_proj.SetRow(j, row);
    } while (!KeepsMargin(layer->gate_proj.Row(j), states, shape.threshold));
  }
}

}  // namespace

void OwnedMatrix::SetRow(size_t row, const std::vector<float>& values) {
  Convert({values.data(), 1, cols_, DataType::kFloat32},
          {view().row(row), 1, cols_, dtype_});
}

std::vector<float> OwnedMatrix::Row(size_t row) const {
  std::vector<float> values(cols_);
  Convert({view().row(row), 1, cols_, dtype_},
          {values.data(), 1, cols_, DataType::kFloat32});
  return values;
}

OwnedMatrix OwnedMatrix::Transposed() const {
  OwnedMatrix result(cols_, rows_, dtype_);
  const size_t bytes = DataTypeBytes(dtype_);
  for (size_t i = 0; i < rows_; ++i) {
    for (size_t j = 0; j < cols_; ++j) {
      std::memcpy(&result.data_[(j * rows_ + i) * bytes],
                  &data_[(i * cols_ + j) * bytes], bytes);
    }
  }
  return result;
}

TestLayer::TestLayer(const TestLayerShape& s, size_t tokens, uint64_t seed)
    : shape(s),
      gate_proj(s.intermediate_size, s.hidden_size, s.dtype),
      up_proj(s.intermediate_size, s.hidden_size, s.dtype),
      down_proj(s.intermediate_size, s.hidden_size, s.dtype),
      hidden_states(tokens, s.hidden_size, s.dtype) {
  std::mt19937_64 random(seed);
  const float deviation = 1 / std::sqrt(static_cast<float>(s.hidden_size));
  FillRows(random, deviation, &up_proj);
  FillRows(random, deviation, &down_proj);
  for (size_t t = 0; t < tokens; ++t) {
    std::vector<float> row(s.hidden_size);
    FillRandom(random, 1, &row);
    row[0] = 1;
    hidden_states.SetRow(t, row);
  }
  FillGate(random, this);
}

OracleResult TestLayer::Expected() const { return Expected(hidden_states); }

OracleResult TestLayer::Expected(const OwnedMatrix& states) const {
  const OwnedMatrix down = down_proj.Transposed();
  return RunOracle({gate_proj.view(), up_proj.view(), down.view(),
                    ActivationName(shape.activation), shape.threshold},
                   states.view(), 0)
      .value();
}

uint32_t TestLayer::PoisonInactive(const OracleResult& expected,
                                   size_t tokens) {
  const std::vector<float> nan(shape.hidden_size,
                               std::numeric_limits<float>::quiet_NaN());
  uint32_t left = 0;
  for (size_t j = 0; j < shape.intermediate_size; ++j) {
    bool active = false;
    for (size_t t = 0; t < tokens; ++t) {
      active |= expected.active[t * shape.intermediate_size + j] != 0;
    }
    if (active) {
      ++left;
      continue;
    }
    up_proj.SetRow(j, nan);
    down_proj.SetRow(j, nan);
  }
  return left;
}

uint32_t UnionOf(const OracleResult& expected, size_t first, size_t tokens) {
  const size_t neurons = expected.active.size() / expected.tokens;
  uint32_t count = 0;
  for (size_t j = 0; j < neurons; ++j) {
    bool active = false;
    for (size_t t = first; t < first + tokens; ++t) {
      active |= expected.active[t * neurons + j] != 0;
    }
    count += active ? 1 : 0;
  }
  return count;
}

}  // namespace sparse_ffn
