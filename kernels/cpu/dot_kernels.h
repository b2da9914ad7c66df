// Steps 1 and 2: dot products of weight rows with hidden states. Each is one
// chain of vector sums over the columns, whatever is computed beside it, so
// that its bits do not depend on the batch, the list or the threads.
#ifndef SPARSE_FFN_KERNELS_CPU_DOT_KERNELS_H_
#define SPARSE_FFN_KERNELS_CPU_DOT_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/packed_matrix.h"
#include "kernels/matrix.h"

namespace sparse_ffn::cpu {

// What hidden states are for dot products with weights of a type: bfloat16 for
// bfloat16 where the processor multiplies that, else float32.
DataType StatesType(DataType weights);

// The hidden states of a batch as PackStates leaves them.
struct HiddenStates {
  uint8_t* data = nullptr;  // [tokens, padded_cols], 64-byte aligned
  size_t tokens = 0;
  size_t padded_cols = 0;
  DataType dtype = DataType::kFloat32;  // StatesType()

  uint8_t* row(size_t token) const {
    return data + token * padded_cols * DataTypeBytes(dtype);
  }
};

// Writes `rows` [x.tokens, hidden_size], of the weights' type, to x, zero
// beyond hidden_size. The order of the columns is that of the dot products of
// weights of the same type.
void PackStates(ConstMatrix rows, const HiddenStates& x);

// Which dot products to compute, and where to put them.
struct DotTask {
  PackedMatrix weights;
  HiddenStates x;
  // The rows to use, ascending; null for all of them. A place is an index into
  // this list.
  const uint32_t* neurons = nullptr;
  // [tokens, stride]: 0 where token t does not need neuron j; null where every
  // token needs every one.
  const float* scores = nullptr;
  float* sums = nullptr;  // [tokens, stride]
  size_t stride = 0;
};

// sums[t, i] = weights row neurons[i] · x row t for the places i in [begin,
// end). Reads no row that is not in the list. Where a token does not need the
// neuron, its sum is left undefined.
void DotRows(const DotTask& task, size_t begin, size_t end);

}  // namespace sparse_ffn::cpu

#endif  // SPARSE_FFN_KERNELS_CPU_DOT_KERNELS_H_
