// Steps 1 and 2: dot products of weight rows with hidden states. Each is one
// chain of vector sums over the columns, whatever is computed beside it, so
// that its bits do not depend on the batch, the list or the threads.
#ifndef SPARSE_FFN_KERNELS_CPU_DOT_KERNELS_H_
#define SPARSE_FFN_KERNELS_CPU_DOT_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/packed_matrix.h"

namespace sparse_ffn::cpu {

// The hidden states of a batch, widened: rows of padded_cols floats, 64-byte
// aligned, zero beyond hidden_size.
struct HiddenStates {
  const float* data = nullptr;  // [tokens, padded_cols]
  size_t tokens = 0;
  size_t padded_cols = 0;

  const float* row(size_t token) const { return data + token * padded_cols; }
};

// scores[t * scores_stride + j] = weights row j · x row t, for every token t
// and each neuron j in [begin, end).
void DotAll(const PackedMatrix& weights, const HiddenStates& x, size_t begin,
            size_t end, float* scores, size_t scores_stride);

// Which dot products DotActive is to compute, and where it puts them.
struct ActiveDots {
  const uint32_t* neurons = nullptr;  // The union list.
  const float* scores = nullptr;      // [tokens, stride], 0 where inactive
  float* sums = nullptr;              // [tokens, stride], by place in the list
  size_t stride = 0;
};

// sums[t, i] = weights row neurons[i] · x row t where scores[t, neurons[i]] is
// not 0, else 0, for i in [begin, end). Reads no row that is not in the list.
void DotActive(const PackedMatrix& weights, const HiddenStates& x,
               const ActiveDots& dots, size_t begin, size_t end);

}  // namespace sparse_ffn::cpu

#endif  // SPARSE_FFN_KERNELS_CPU_DOT_KERNELS_H_
