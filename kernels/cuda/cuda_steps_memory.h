// The device memory of CudaSteps.
#ifndef SPARSE_FFN_KERNELS_CUDA_CUDA_STEPS_MEMORY_H_
#define SPARSE_FFN_KERNELS_CUDA_CUDA_STEPS_MEMORY_H_

#include <cstddef>

#include "kernels/cuda/batch_passes.h"
#include "kernels/ffn_backend.h"

namespace sparse_ffn::cuda {

// The tokens of every dense product of a deterministic backend. A row of what
// cuBLAS computes has the same bits at any place and beside any others, but
// other ones where there are more rows or fewer. So many because the weights
// are read for them in little more time than for one.
constexpr size_t kDenseTokens = 128;

// Bytes of each buffer, in the order in which they lie in memory.
struct StepsMemory {
  size_t hidden_states, scores, union_list, gated, dense_up, parts, part_active,
      passed, fused_state, result;

  StepsMemory(const FfnConfig& config, int sm_count);
  size_t total() const {
    return hidden_states + scores + union_list + gated + dense_up + parts +
           part_active + passed + fused_state + result;
  }

  // Counters of a batch: the union's, each token's, that of the fused batch's
  // list. Whole packs, so that those of the next batch are aligned, too.
  static size_t Counters(const FfnConfig& config) {
    return CounterStride(1 + config.max_batch_tokens);
  }
  // Of two batches, which take turns.
  static size_t CounterBytes(const FfnConfig& config);
  // Of one of the two parts that the batch form's gated neurons are split in.
  static size_t SplitBytes(const FfnConfig& config);
  // max_batch_tokens, in a deterministic backend rounded up to kDenseTokens.
  static size_t PaddedTokens(const FfnConfig& config);
  // Columns of a part of the output that a fused launch leaves.
  static size_t PartStride(const FfnConfig& config) {
    return (config.hidden_size + 3) / 4 * 4;
  }
};

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_CUDA_STEPS_MEMORY_H_
