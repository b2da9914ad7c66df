// Sparse or dense: which kernels to expect the shorter time from.
#ifndef SPARSE_FFN_KERNELS_CPU_PATH_CHOICE_H_
#define SPARSE_FFN_KERNELS_CPU_PATH_CHOICE_H_

#include <atomic>

#include "kernels/ffn_backend.h"

namespace sparse_ffn::cpu {

// A running estimate of how many neurons of one layer are active for a token,
// as a share in [0, 1]. Any thread may call both; concurrent updates may lose
// one of them.
class ActiveDensity {
 public:
  // 0, the hope of a sparse model, before the first update.
  float Expected() const { return estimate_.load(std::memory_order_relaxed); }

  // Moves the estimate an eighth of the way to `density`; the first one whole.
  void Update(float density) {
    const float old = estimate_.load(std::memory_order_relaxed);
    estimate_.store(old == 0 ? density : old + (density - old) / 8,
                    std::memory_order_relaxed);
  }

 private:
  std::atomic<float> estimate_ = 0;
};

// The sparse kernels compute only what each token needs and read only what the
// batch needs, so that not the union but the share of a token decides: for one
// token sparse is never slower, for many it is from this limit on, because the
// dense kernels use a row for several tokens at once.
constexpr FfnPath ChoosePath(Execution execution, float expected_density) {
  constexpr float kMaxSparseDensity = 0.8F;
  if (execution == Execution::kSparse) return FfnPath::kSparse;
  if (execution == Execution::kDense) return FfnPath::kDense;
  return expected_density <= kMaxSparseDensity ? FfnPath::kSparse
                                               : FfnPath::kDense;
}

}  // namespace sparse_ffn::cpu

#endif  // SPARSE_FFN_KERNELS_CPU_PATH_CHOICE_H_
