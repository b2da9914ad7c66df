// A running estimate of the union density of one layer: the share of neurons
// active for at least one of the tokens that run at once, in a batch or in each
// of its passes. It grows with their number, so there is one estimate for each
// power of two of tokens.
#ifndef SPARSE_FFN_KERNELS_CUDA_UNION_DENSITY_H_
#define SPARSE_FFN_KERNELS_CUDA_UNION_DENSITY_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>

namespace sparse_ffn::cuda {

// Any thread may call both; concurrent updates may lose one of them.
class UnionDensity {
 public:
  // Share in [0, 1] to expect for a batch of `tokens` >= 1. Where no batch of
  // that size was seen, that of the next smaller size seen, which it will not
  // fall below; where there is none either, 0, the hope of a sparse model.
  float Expected(size_t tokens) const {
    float estimate = 0;
    for (size_t i = Bucket(tokens) + 1; i > 0 && estimate == 0; --i) {
      estimate = estimates_[i - 1].load(std::memory_order_relaxed);
    }
    return estimate;
  }

  // The same of the densest pass of such a batch, where each is of
  // `pass_tokens`: no more than what the whole batch needs.
  float ExpectedOfPass(size_t tokens, size_t pass_tokens) const {
    return std::min(Expected(std::min(tokens, pass_tokens)), Expected(tokens));
  }

  // Moves the estimate an eighth of the way to `density`; the first one whole.
  void Update(size_t tokens, float density) {
    std::atomic<float>& estimate = estimates_[Bucket(tokens)];
    const float old = estimate.load(std::memory_order_relaxed);
    const float next = old == 0 ? density : old + (density - old) / 8;
    estimate.store(next, std::memory_order_relaxed);
  }

 private:
  static constexpr size_t kBuckets = 16;

  static size_t Bucket(size_t tokens) {
    const size_t bucket = static_cast<size_t>(std::bit_width(tokens - 1));
    return bucket < kBuckets ? bucket : kBuckets - 1;
  }

  std::array<std::atomic<float>, kBuckets> estimates_ = {};
};

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_UNION_DENSITY_H_
