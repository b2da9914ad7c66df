#include "client/cli/oracle.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "absl/strings/str_cat.h"
#include "server/checkpoint/parallel_blocks.h"

namespace sparse_ffn {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Two roundings to nearest of a float32.
constexpr double kFloatEpsilon = std::numeric_limits<float>::epsilon();
// Roundings of many h add up like random steps; more than this many times
// their root mean square does not happen.
constexpr double kRandomStepsFactor = 4;

// Largest error of rounding `value` to nearest.
double RoundingError(DataType dtype, double value) {
  switch (dtype) {
    case DataType::kFloat16:
      return std::max(std::ldexp(std::abs(value), -11), std::ldexp(1.0, -25));
    case DataType::kBFloat16:
      return std::max(std::ldexp(std::abs(value), -8), std::ldexp(1.0, -134));
    case DataType::kFloat32:
      break;
  }
  return std::max(std::ldexp(std::abs(value), -24), std::ldexp(1.0, -150));
}

std::vector<float> Row(ConstMatrix matrix, size_t row) {
  std::vector<float> values(matrix.cols);
  Convert({matrix.row(row), 1, matrix.cols, matrix.dtype},
          {values.data(), 1, matrix.cols, DataType::kFloat32});
  return values;
}

struct Sum {
  double value = 0;
  double error = 0;  // Of the same sum in float32.
};

double SumError(size_t terms, double magnitude) {
  return kFloatEpsilon * std::sqrt(static_cast<double>(terms)) * magnitude +
         static_cast<double>(std::numeric_limits<float>::min());
}

Sum Dot(const std::vector<float>& a, const std::vector<float>& b) {
  double value = 0;
  double magnitude = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double term = static_cast<double>(a[i]) * b[i];
    value += term;
    magnitude += std::abs(term);
  }
  return {value, SumError(a.size(), magnitude)};
}

// A neuron whose product h may be part of a token's output.
struct Gated {
  size_t neuron = 0;
  bool active = false;
  bool borderline = false;
  double h = 0;      // Where active; what it would be where borderline.
  double error = 0;  // Of h in float32.
  // Of h to the type of the weights, and to the sum of two of them.
  double rounding = 0;
  double split_rounding = 0;
};

// Steps 1 and 2 for one neuron and one token.
Gated GateNeuron(const OracleLayer& layer, size_t neuron,
                 const std::vector<float>& gate, const std::vector<float>& up,
                 const std::vector<float>& x) {
  const Sum s = Dot(gate, x);
  const bool jumps = layer.activation == "fatrelu" && layer.threshold > 0;
  const double threshold = jumps ? layer.threshold : 0;
  Gated gated;
  gated.neuron = neuron;
  // Negated, so that NaN is active.
  gated.active = jumps ? !(s.value < threshold) : !(s.value <= 0);
  gated.borderline = std::abs(s.value - threshold) <= s.error;
  if (!gated.active && !gated.borderline) return gated;
  Sum u = Dot(up, x);
  if (layer.activation == "drelu" && u.value < 0) u.value = 0;
  gated.h = s.value * u.value;
  gated.error = std::abs(s.value) * u.error + std::abs(u.value) * s.error +
                s.error * u.error + RoundingError(DataType::kFloat32, gated.h);
  gated.rounding = RoundingError(layer.gate_proj.dtype, gated.h);
  gated.split_rounding = RoundingError(layer.gate_proj.dtype, gated.rounding);
  return gated;
}

// What roundings of many h add up to in one output.
struct Roundings {
  double all = 0;
  double squares = 0;

  void Add(double rounding, double weight) {
    all += rounding * std::abs(weight);
    squares += rounding * weight * rounding * weight;
  }
  double Sum() const {
    return std::min(all, kRandomStepsFactor * std::sqrt(squares));
  }
};

// Step 3 for one column and one token.
void SumColumn(const std::vector<Gated>& gated, const std::vector<float>& down,
               size_t at, OracleResult* result) {
  double value = 0;
  double magnitude = 0;
  double square_error = 0;
  double borderline = 0;
  Roundings rounding;
  Roundings split_rounding;
  for (const Gated& g : gated) {
    const double weight = down[g.neuron];
    const double term = g.h * weight;
    if (g.active) value += term;
    if (g.borderline) borderline += std::abs(term);
    magnitude += std::abs(term);
    square_error += g.error * weight * g.error * weight;
    rounding.Add(g.rounding, weight);
    split_rounding.Add(g.split_rounding, weight);
  }
  result->output[at] = value;
  result->tolerance[at] =
      std::sqrt(square_error) + borderline + SumError(gated.size(), magnitude);
  result->gated_rounding[at] = rounding.Sum();
  result->gated_split_rounding[at] = split_rounding.Sum();
}

// Calls `work` for every number below `count`, in `threads` threads.
void ForEach(size_t count, int threads,
             const std::function<void(size_t)>& work) {
  const size_t workers =
      threads > 0 ? static_cast<size_t>(threads) : UsableProcessors();
  ForEachBlock(count, workers, [&work](size_t i, size_t /*worker*/) {
    work(i);
    return absl::OkStatus();
  }).IgnoreError();  // None can come.
}

absl::Status CheckLayer(const OracleLayer& layer, ConstMatrix x) {
  const ConstMatrix& gate = layer.gate_proj;
  const auto is = [&](ConstMatrix matrix, size_t rows, size_t cols) {
    return matrix.rows == rows && matrix.cols == cols &&
           matrix.dtype == gate.dtype;
  };
  if (!is(layer.up_proj, gate.rows, gate.cols) ||
      !is(layer.down_proj, gate.cols, gate.rows) || !is(x, x.rows, gate.cols)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "gate_proj is ", DataTypeName(gate.dtype), " [", gate.rows, ", ",
        gate.cols, "]; up_proj, down_proj or the hidden states do not fit it"));
  }
  if (layer.activation != "relu" && layer.activation != "fatrelu" &&
      layer.activation != "drelu") {
    return absl::InvalidArgumentError(
        absl::StrCat("activation: expected relu, fatrelu or drelu, got \"",
                     layer.activation, "\""));
  }
  return absl::OkStatus();
}

// Steps 1 and 2: of each token, the neurons that are active or borderline.
std::vector<std::vector<Gated>> GateTokens(const OracleLayer& layer,
                                           ConstMatrix hidden_states,
                                           int threads) {
  const size_t tokens = hidden_states.rows;
  const size_t neurons = layer.gate_proj.rows;
  std::vector<std::vector<float>> x;
  for (size_t t = 0; t < tokens; ++t) x.push_back(Row(hidden_states, t));
  std::vector<Gated> all(tokens * neurons);
  ForEach(neurons, threads, [&](size_t j) {
    const std::vector<float> gate = Row(layer.gate_proj, j);
    const std::vector<float> up = Row(layer.up_proj, j);
    for (size_t t = 0; t < tokens; ++t) {
      all[t * neurons + j] = GateNeuron(layer, j, gate, up, x[t]);
    }
  });
  std::vector<std::vector<Gated>> gated(tokens);
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i].active || all[i].borderline) {
      gated[i / neurons].push_back(all[i]);
    }
  }
  return gated;
}

}  // namespace

absl::StatusOr<OracleResult> RunOracle(const OracleLayer& layer,
                                       ConstMatrix hidden_states, int threads) {
  absl::Status status = CheckLayer(layer, hidden_states);
  if (!status.ok()) return status;
  OracleResult result;
  result.tokens = hidden_states.rows;
  result.hidden_size = hidden_states.cols;
  const std::vector<std::vector<Gated>> gated =
      GateTokens(layer, hidden_states, threads);
  result.active.resize(result.tokens * layer.gate_proj.rows);
  result.active_neurons.resize(result.tokens);
  result.borderline_neurons.resize(result.tokens);
  for (size_t t = 0; t < result.tokens; ++t) {
    for (const Gated& g : gated[t]) {
      result.active[t * layer.gate_proj.rows + g.neuron] = g.active ? 1 : 0;
      result.active_neurons[t] += g.active ? 1 : 0;
      result.borderline_neurons[t] += g.borderline ? 1 : 0;
    }
  }
  for (std::vector<double>* values :
       {&result.output, &result.tolerance, &result.gated_rounding,
        &result.gated_split_rounding}) {
    values->resize(result.tokens * result.hidden_size);
  }
  ForEach(result.hidden_size, threads, [&](size_t column) {
    const std::vector<float> down = Row(layer.down_proj, column);
    for (size_t t = 0; t < result.tokens; ++t) {
      SumColumn(gated[t], down, t * result.hidden_size + column, &result);
    }
  });
  return result;
}

Comparison Compare(const OracleResult& expected, size_t first_token,
                   ConstMatrix served, GatedAs gated) {
  Comparison worst;
  for (size_t t = 0; t < served.rows; ++t) {
    const std::vector<float> row = Row(served, t);
    for (size_t column = 0; column < served.cols; ++column) {
      const size_t at = (first_token + t) * expected.hidden_size + column;
      const double value = expected.output[at];
      double tolerance = expected.tolerance[at];
      if (gated == GatedAs::kOneOfWeightsType) {
        tolerance += expected.gated_rounding[at];
      } else if (gated == GatedAs::kTwoOfWeightsType) {
        tolerance += expected.gated_split_rounding[at];
      }
      tolerance += RoundingError(served.dtype, std::abs(value) + tolerance);
      double error = std::abs(row[column] - value);
      if (std::isnan(value)) error = std::isnan(row[column]) ? 0 : kInfinity;
      if (std::isnan(error)) error = kInfinity;
      if (std::isnan(tolerance)) tolerance = 0;
      const double ratio = error == 0 ? 0 : error / tolerance;
      if (ratio > 1) ++worst.misses;
      if (ratio <= worst.worst_ratio) continue;
      worst = {ratio <= 1, ratio, error, tolerance, t, column, worst.misses};
    }
  }
  return worst;
}

bool ActiveCountAgrees(const OracleResult& expected, size_t token,
                       uint32_t active_neurons) {
  const uint32_t exact = expected.active_neurons[token];
  const uint32_t difference =
      active_neurons > exact ? active_neurons - exact : exact - active_neurons;
  return difference <= expected.borderline_neurons[token];
}

}  // namespace sparse_ffn
