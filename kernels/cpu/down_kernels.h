// Step 3: rows of down_proj, scaled and summed. Each output of a task is one
// chain of sums over its rows in ascending order, to which a neuron that the
// token does not need adds nothing or 0, so that its bits do not depend on the
// batch or on how the columns are shared among threads.
#ifndef SPARSE_FFN_KERNELS_CPU_DOWN_KERNELS_H_
#define SPARSE_FFN_KERNELS_CPU_DOWN_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/packed_matrix.h"

namespace sparse_ffn::cpu {

struct DownTask {
  PackedMatrix weights;
  // Ascending; null for all rows. A place is an index into this list.
  const uint32_t* neurons = nullptr;
  // The places of the rows to sum: [first, end).
  size_t first = 0;
  size_t end = 0;
  // h by place in the list: [tokens, gated_stride].
  const float* gated = nullptr;
  size_t gated_stride = 0;
  // Whether a row counts for a token only if h is not 0 there.
  bool skip_zeros = true;
  size_t tokens = 0;
  float* output = nullptr;  // [tokens, weights.padded_cols], 64-byte aligned
};

// Computes the columns [begin, end) of the output, both multiples of
// kColumnMultiple.
void SumRows(const DownTask& task, size_t begin, size_t end);
constexpr size_t kColumnMultiple = 32;

}  // namespace sparse_ffn::cpu

#endif  // SPARSE_FFN_KERNELS_CPU_DOWN_KERNELS_H_
