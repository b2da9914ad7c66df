#include "kernels/cuda/cuda_steps_memory.h"

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/cuda_model.h"
#include "kernels/cuda/launch_fused.h"

namespace sparse_ffn::cuda {

StepsMemory::StepsMemory(const FfnConfig& config, int sm_count) {
  const size_t tokens = PaddedTokens(config);
  const size_t n = config.intermediate_size;
  hidden_states = AlignUp(tokens * config.hidden_size *
                          DataTypeBytes(config.weights_dtype));
  scores = AlignUp(tokens * n * sizeof(float));
  union_list = AlignUp(n * sizeof(int));
  gated = std::max(scores, 2 * SplitBytes(config));
  dense_up = scores;
  const size_t blocks = sm_count;
  size_t part_rows = blocks * kOneKernelTokens;
  if (config.deterministic) {
    const size_t groups =
        SumGroups(sm_count, static_cast<int>(config.hidden_size));
    part_rows = std::max(part_rows, groups * kBatchFormTokens);
  }
  parts = AlignUp(part_rows * PartStride(config) * sizeof(float));
  part_active = AlignUp(blocks * (1 + kOneKernelTokens) * sizeof(int));
  constexpr size_t kElementBytes = 4;  // Half of them tags.
  passed = AlignUp(kElementBytes * config.hidden_size * kPassedSets *
                   kOneKernelTokens);
  fused_state = AlignUp(sizeof(FusedState));
  result = CounterBytes(config) +
           AlignUp(tokens * config.hidden_size * sizeof(float));
}

size_t StepsMemory::PaddedTokens(const FfnConfig& config) {
  if (!config.deterministic) return config.max_batch_tokens;
  return (config.max_batch_tokens + kDenseTokens - 1) / kDenseTokens *
         kDenseTokens;
}

size_t StepsMemory::CounterBytes(const FfnConfig& config) {
  return AlignUp(2 * Counters(config) * sizeof(int));
}

size_t StepsMemory::SplitBytes(const FfnConfig& config) {
  return AlignUp(kBatchFormTokens * config.intermediate_size *
                 sizeof(uint16_t));
}

}  // namespace sparse_ffn::cuda
