#include "kernels/cpu/activation.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace sparse_ffn::cpu {

size_t SelectActive(Scores scores, float threshold, size_t begin, size_t end,
                    uint32_t* active_neurons, uint32_t* union_neurons) {
  // What is below the smallest positive number is not positive.
  const float lowest =
      threshold > 0 ? threshold : std::numeric_limits<float>::denorm_min();
  const size_t size = end - begin;
  std::fill_n(union_neurons, size, 0);  // First whether, then which.
  for (size_t t = 0; t < scores.tokens; ++t) {
    float* row = scores.data + t * scores.stride + begin;
    uint32_t active = 0;
    for (size_t i = 0; i < size; ++i) {
      const uint32_t is_active = row[i] < lowest ? 0 : 1;  // 1 for NaN.
      row[i] = is_active != 0 ? row[i] : 0;
      union_neurons[i] |= is_active;
      active += is_active;
    }
    active_neurons[t] += active;
  }
  size_t count = 0;
  for (size_t i = 0; i < size; ++i) {
    const uint32_t is_active = union_neurons[i];
    union_neurons[count] = static_cast<uint32_t>(begin + i);
    count += is_active;
  }
  return count;
}

void GateProducts(Activation activation, const float* scores,
                  const uint32_t* neurons, size_t count, float* products) {
  const bool clamp = activation == Activation::kDRelu;
  for (size_t i = 0; i < count; ++i) {
    const float s = scores[neurons == nullptr ? i : size_t{neurons[i]}];
    // The comparison is false for NaN, which stays.
    const float u = clamp && products[i] < 0 ? 0 : products[i];
    // By bits, since branches on s are hard to predict.
    const uint32_t kept = s == 0 ? 0 : ~uint32_t{0};
    products[i] = std::bit_cast<float>(std::bit_cast<uint32_t>(s * u) & kept);
  }
}

}  // namespace sparse_ffn::cpu
