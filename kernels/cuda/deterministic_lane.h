// The lane of a deterministic CUDA backend. Needs no device itself.
#ifndef SPARSE_FFN_KERNELS_CUDA_DETERMINISTIC_LANE_H_
#define SPARSE_FFN_KERNELS_CUDA_DETERMINISTIC_LANE_H_

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/ffn_backend.h"

namespace sparse_ffn::cuda {

// A lane that keeps the promise of FfnConfig::deterministic: it runs the tokens
// of a sparse batch through `lane` in passes, one after the other, of up to
// `pass_tokens`; and kAuto as kSparse, so that neither estimates nor measured
// times decide. Of `lane` it takes that a token gets the same bits in every
// such pass and in every dense batch, and that its input has room for
// config.max_batch_tokens: callers write there, so that a batch of one pass is
// not copied. RESOURCE_EXHAUSTED when memory runs out.
absl::StatusOr<std::unique_ptr<FfnLane>> NewDeterministicLane(
    std::unique_ptr<FfnLane> lane, const FfnConfig& config, size_t pass_tokens);

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_DETERMINISTIC_LANE_H_
