// Which neurons are active in a case that is timed.
#ifndef SPARSE_FFN_TESTS_BENCH_BENCH_MASKS_H_
#define SPARSE_FFN_TESTS_BENCH_BENCH_MASKS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "client/npy.h"

namespace sparse_ffn::bench {

// 1 or 0 for each neuron: [layers][tokens * n].
using Masks = std::vector<std::vector<uint8_t>>;

// Each neuron active with probability 1 - sparsity. Same arguments, same masks.
Masks RandomMasks(int layers, int tokens, size_t n, double sparsity);

// Consecutive rows of recorded activations, each layer's from another place.
// Neuron j takes column j modulo the number of columns, so that a model of
// another size can be driven by them too. INVALID_ARGUMENT where there are
// fewer rows than tokens.
absl::StatusOr<Masks> ReplayedMasks(const NpyArray& rows, int layers,
                                    int tokens, size_t n);

// Share of neurons active for at least one token, mean over the layers.
double UnionDensity(const Masks& masks, size_t n);

// The layer whose share is nearest to that mean; of equals the first.
int TypicalLayer(const Masks& masks, size_t n);

}  // namespace sparse_ffn::bench

#endif  // SPARSE_FFN_TESTS_BENCH_BENCH_MASKS_H_
