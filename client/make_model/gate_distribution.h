// Gate weights whose scores pass the threshold with a wanted probability.
#ifndef SPARSE_FFN_CLIENT_MAKE_MODEL_GATE_DISTRIBUTION_H_
#define SPARSE_FFN_CLIENT_MAKE_MODEL_GATE_DISTRIBUTION_H_

#include <cstddef>

#include "client/counter_random.h"

namespace sparse_ffn {

// A neuron's weights are mean + deviation * N(0, 1). For inputs of 1 + N(0, 1)
// its score is then about normal over inputs and neurons, half of the variance
// being the neuron's own, so that some neurons fire more often than others, as
// in real models. Good for hidden sizes of some dozens and more.
class GateDistribution {
 public:
  // `density`: share of scores >= threshold. `score_deviation` > 0: of the
  // scores. Density 0 and 1 are exact for inputs drawn by RandomInputs.
  GateDistribution(size_t hidden_size, double density, double threshold,
                   double score_deviation);

  // Writes the [hidden_size] weights of one neuron.
  void FillRow(const CounterRandom& random, float* row) const;

 private:
  size_t hidden_size_;
  float mean_ = 0;
  float deviation_ = 0;
};

// The x with a share `probability`, inside (0, 1), of N(0, 1) below it, to six
// digits: the same on every machine.
double NormalQuantile(double probability);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_MAKE_MODEL_GATE_DISTRIBUTION_H_
