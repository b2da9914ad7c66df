// Transposes part of a matrix at the speed of the memory.
#ifndef SPARSE_FFN_SERVER_TRANSPOSE_H_
#define SPARSE_FFN_SERVER_TRANSPOSE_H_

#include <cstddef>

#include "kernels/matrix.h"

namespace sparse_ffn {

// Writes `rows`, [r, c], as columns first_col to first_col + r of
// `destination`, [c, any]. Same type, both aligned to their elements, no
// overlap.
void Transpose(ConstMatrix rows, Matrix destination, size_t first_col);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_TRANSPOSE_H_
