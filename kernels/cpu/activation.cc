#include "kernels/cpu/activation.h"

namespace sparse_ffn::cpu {

size_t SelectActive(Scores scores, float threshold, size_t begin, size_t end,
                    uint32_t* active_neurons, uint32_t* union_neurons) {
  for (size_t t = 0; t < scores.tokens; ++t) {
    float* row = scores.data + t * scores.stride;
    uint32_t active = 0;
    for (size_t j = begin; j < end; ++j) {
      // False for NaN, which is thereby active.
      const bool inactive = threshold > 0 ? row[j] < threshold : row[j] <= 0;
      row[j] = inactive ? 0 : row[j];
      active += inactive ? 0 : 1;
    }
    active_neurons[t] += active;
  }
  size_t count = 0;
  for (size_t j = begin; j < end; ++j) {
    bool any = false;
    for (size_t t = 0; t < scores.tokens && !any; ++t) {
      any = scores.data[t * scores.stride + j] != 0;
    }
    union_neurons[count] = static_cast<uint32_t>(j);
    count += any ? 1 : 0;
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
    products[i] = s == 0 ? 0 : s * u;
  }
}

}  // namespace sparse_ffn::cpu
