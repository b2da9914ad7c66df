// Dot products with one fixed order of summation, so that every machine and
// compiler gets the same bits.
#ifndef SPARSE_FFN_CLIENT_MAKE_MODEL_DOT_H_
#define SPARSE_FFN_CLIENT_MAKE_MODEL_DOT_H_

#include <cstddef>

namespace sparse_ffn {

float Dot(const float* a, const float* b, size_t size);
double Dot(const double* a, const double* b, size_t size);

// y += factor * x
void AddScaled(float factor, const float* x, float* y, size_t size);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_MAKE_MODEL_DOT_H_
