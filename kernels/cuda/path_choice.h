// Which path to expect the shortest time from.
#ifndef SPARSE_FFN_KERNELS_CUDA_PATH_CHOICE_H_
#define SPARSE_FFN_KERNELS_CUDA_PATH_CHOICE_H_

#include <cstddef>

#include "kernels/cuda/path_costs.h"
#include "kernels/ffn_backend.h"

namespace sparse_ffn::cuda {

// Most tokens of the batch form.
inline constexpr size_t kMaxBatchFormTokens = 32;

// Most tokens whose fused form is one kernel for all steps.
inline constexpr size_t kMaxOneKernelTokens = 2;

// Whether the sparse steps run in their batch form (launch_steps.h). Below
// three tokens the plain form is as fast.
constexpr bool UsesBatchForm(size_t tokens, size_t hidden_size) {
  return tokens > 2 && tokens <= kMaxBatchFormTokens && hidden_size % 8 == 0;
}

inline constexpr float kNever = -1.0F;  // At no density.

// Share of neurons up to which the sparse steps are taken for the faster path
// where nothing was measured. The limits are near where the two take the same
// time on an H200 at 7B sizes; for one token of aligned rows, well below.
constexpr float MaxSparseDensity(size_t tokens, size_t hidden_size) {
  if (tokens <= 1) return 0.65F;
  if (tokens <= 2) return 0.6F;
  if (!UsesBatchForm(tokens, hidden_size)) return tokens <= 4 ? 0.45F : kNever;
  return tokens <= 16 ? 0.8F : 0.6F;
}

// The same of the fused form, which runs more than kMaxBatchFormTokens in
// passes: there dense is taken.
constexpr float MaxFusedDensity(size_t tokens) {
  if (tokens > kMaxBatchFormTokens) return kNever;
  return tokens <= 16 ? 1.0F : 0.9F;
}

// Whether a batch that need not be dense may run fused. `takes`: there is a
// fused form for its size. `fast`: it is faster than the steps.
constexpr bool UsesFused(SparseForm form, bool takes, bool fast) {
  if (!takes || form == SparseForm::kSteps) return false;
  return form != SparseForm::kAuto || fast;
}

// The path with the least time to expect from `costs`.
// `expected_union_density` is the share of neurons, in [0, 1], that a batch of
// `tokens` of this layer is expected to need, or its densest pass where it
// would run in passes; `fused` what UsesFused says. Of the paths that
// `execution` and `fused` leave, one that was not measured for so many tokens
// is taken only where no other is left. Where none of them was measured a fixed
// rule decides: fused where that is left, else sparse, and dense beyond
// MaxFusedDensity or MaxSparseDensity.
FfnPath ChoosePath(Execution execution, size_t tokens, size_t hidden_size,
                   float expected_union_density, bool fused,
                   const PathCosts& costs);

// Largest union density, in hundredths, at which ChoosePath with
// Execution::kAuto does not take the dense path; negative where it always does.
float SparseUpTo(size_t tokens, size_t hidden_size, bool fused,
                 const PathCosts& costs);

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_PATH_CHOICE_H_
