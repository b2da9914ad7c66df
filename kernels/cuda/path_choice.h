// Sparse or dense: which kernels to expect the shorter time from.
#ifndef SPARSE_FFN_KERNELS_CUDA_PATH_CHOICE_H_
#define SPARSE_FFN_KERNELS_CUDA_PATH_CHOICE_H_

#include <cstddef>

#include "kernels/ffn_backend.h"

namespace sparse_ffn::cuda {

// Most tokens of the batch form.
inline constexpr size_t kMaxBatchFormTokens = 32;

// Whether the sparse steps run in their batch form (launch.h). Below three
// tokens the plain form is as fast.
constexpr bool UsesBatchForm(size_t tokens, size_t hidden_size) {
  return tokens > 2 && tokens <= kMaxBatchFormTokens && hidden_size % 8 == 0;
}

// Share of neurons up to which the sparse steps are the faster path. The limits
// are where the two took the same time on an H200 at 7B sizes.
constexpr float MaxSparseDensity(size_t tokens, size_t hidden_size) {
  constexpr float kNever = -1.0F;
  if (tokens <= 1) return 0.65F;
  if (tokens <= 2) return 0.6F;
  if (!UsesBatchForm(tokens, hidden_size)) return tokens <= 4 ? 0.45F : kNever;
  return tokens <= 16 ? 0.75F : 0.35F;
}

// Whether a batch that need not be dense runs fused. `takes`: there is a fused
// form for its size. `fast`: it is faster than the steps. `timed`: the steps
// are to be timed.
constexpr bool UsesFused(SparseForm form, bool takes, bool fast, bool timed) {
  if (!takes || form == SparseForm::kSteps) return false;
  return form != SparseForm::kAuto || (fast && !timed);
}

// `expected_union_density` is the share of neurons, in [0, 1], that a batch of
// `tokens` of this layer is expected to need; `fused` what UsesFused says. At
// full density too the fused form took less time than the dense path.
constexpr FfnPath ChoosePath(Execution execution, size_t tokens,
                             size_t hidden_size, float expected_union_density,
                             bool fused) {
  if (execution == Execution::kDense) return FfnPath::kDense;
  if (fused) return FfnPath::kFused;
  if (execution == Execution::kSparse) return FfnPath::kSparse;
  return expected_union_density <= MaxSparseDensity(tokens, hidden_size)
             ? FfnPath::kSparse
             : FfnPath::kDense;
}

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_PATH_CHOICE_H_
