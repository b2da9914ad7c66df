// What every backend demands of its configuration and its weights.
#ifndef SPARSE_FFN_KERNELS_FFN_CHECKS_H_
#define SPARSE_FFN_KERNELS_FFN_CHECKS_H_

#include "absl/status/status.h"
#include "kernels/ffn_backend.h"

namespace sparse_ffn {

// INVALID_ARGUMENT, naming the field, unless hidden_size and intermediate_size
// are 1 to 2^24, max_batch_tokens 1 to kMaxBatchTokens and below 2^31 elements
// in a batch of either size, which keeps every index of the kernels in range,
// and the threshold finite, >= 0, and 0 where the activation has none.
absl::Status CheckConfig(const FfnConfig& config);

// INVALID_ARGUMENT, naming the matrix, unless each is [intermediate_size,
// hidden_size] of weights_dtype and has data.
absl::Status CheckWeights(const FfnConfig& config, const FfnWeights& weights);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_KERNELS_FFN_CHECKS_H_
