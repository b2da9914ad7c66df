// The activation: which neurons a score makes active, and what h becomes.
#ifndef SPARSE_FFN_KERNELS_CPU_ACTIVATION_H_
#define SPARSE_FFN_KERNELS_CPU_ACTIVATION_H_

#include <cstddef>
#include <cstdint>

#include "kernels/ffn_backend.h"

namespace sparse_ffn::cpu {

// Scores of a batch: [tokens, stride], of which step 1 filled some columns.
struct Scores {
  float* data = nullptr;
  size_t tokens = 0;
  size_t stride = 0;
};

// Sets the scores of inactive neurons in [begin, end) to 0 and adds each
// token's active ones to active_neurons [tokens]. Writes the neurons that are
// active for at least one token, ascending, to union_neurons [end - begin] and
// returns their number. `threshold` as in FfnConfig; NaN is active.
size_t SelectActive(Scores scores, float threshold, size_t begin, size_t end,
                    uint32_t* active_neurons, uint32_t* union_neurons);

// h = s * u of one token, in place of u, [count]: u is clamped at 0 first for
// kDRelu. s is scores[neurons[i]], or scores[i] where `neurons` is null; where
// it is 0, so is h.
void GateProducts(Activation activation, const float* scores,
                  const uint32_t* neurons, size_t count, float* products);

}  // namespace sparse_ffn::cpu

#endif  // SPARSE_FFN_KERNELS_CPU_ACTIVATION_H_
