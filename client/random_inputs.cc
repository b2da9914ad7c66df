#include "client/random_inputs.h"

#include <cmath>

#include "client/counter_random.h"

namespace sparse_ffn {
namespace {

// Eight significant bits cover all magnitudes below 8 in these steps.
constexpr float kStepsPerUnit = 32;

// Fills `row` and returns its sum in steps.
int64_t FillRow(const CounterRandom& random, uint64_t attempt, size_t cols,
                float* row) {
  int64_t sum_steps = 0;
  for (size_t col = 0; col < cols; ++col) {
    const float value = 1 + random.Normal(attempt * cols + col);
    const float steps = std::floor(value * kStepsPerUnit + 0.5F);
    row[col] = steps / kStepsPerUnit;
    sum_steps += static_cast<int64_t>(steps);
  }
  return sum_steps;
}

}  // namespace

std::vector<float> RandomInputs(size_t rows, size_t hidden_size,
                                uint64_t seed) {
  std::vector<float> inputs(rows * hidden_size);
  const CounterRandom random(seed);
  const auto least_steps = static_cast<int64_t>(
      hidden_size * static_cast<size_t>(kStepsPerUnit / 2));
  for (size_t row = 0; row < rows; ++row) {
    const CounterRandom row_random = random.Stream(row);
    // The wanted sum is the expected one less half: most rows have it at once,
    // and a row of one element in 2 of 3 attempts.
    for (uint64_t attempt = 0;; ++attempt) {
      if (FillRow(row_random, attempt, hidden_size,
                  inputs.data() + row * hidden_size) >= least_steps) {
        break;
      }
    }
  }
  return inputs;
}

}  // namespace sparse_ffn
