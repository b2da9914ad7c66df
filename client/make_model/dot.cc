#include "client/make_model/dot.h"

namespace sparse_ffn {
namespace {

// Partial sums that the compiler can keep in vector registers of any width.
template <typename Real, size_t kLanes>
Real DotInLanes(const Real* a, const Real* b, size_t size) {
  Real lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] += a[i + lane] * b[i + lane];
    }
  }
  Real sum = 0;
  for (; i < size; ++i) sum += a[i] * b[i];
  for (const Real lane : lanes) sum += lane;
  return sum;
}

}  // namespace

float Dot(const float* a, const float* b, size_t size) {
  return DotInLanes<float, 32>(a, b, size);
}

double Dot(const double* a, const double* b, size_t size) {
  return DotInLanes<double, 16>(a, b, size);
}

void AddScaled(float factor, const float* x, float* y, size_t size) {
  for (size_t i = 0; i < size; ++i) y[i] += factor * x[i];
}

}  // namespace sparse_ffn
