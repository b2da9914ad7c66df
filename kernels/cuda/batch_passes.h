// The passes of a deterministic backend's batch: tokens side by side, as many
// as get the bits that each has alone, one pass after the other.
#ifndef SPARSE_FFN_KERNELS_CUDA_BATCH_PASSES_H_
#define SPARSE_FFN_KERNELS_CUDA_BATCH_PASSES_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/ffn_backend.h"

namespace sparse_ffn::cuda {

class BatchPasses {
 public:
  // Of batches of up to `max_tokens`, with up to `pass_tokens` in each pass.
  BatchPasses(size_t max_tokens, size_t pass_tokens)
      : most_(pass_tokens), active_(max_tokens), passes_(Count(max_tokens)) {}

  size_t Count(size_t tokens) const { return (tokens + most_ - 1) / most_; }
  // The first token of pass `i`, and how many it has, in a batch of `tokens`.
  size_t First(size_t i) const { return i * most_; }
  size_t Tokens(size_t i, size_t tokens) const {
    return std::min(most_, tokens - First(i));
  }
  // Where its counters begin: how many neurons are active for some of its
  // tokens, then for each.
  size_t CountersAt(size_t i) const { return i * (1 + most_); }
  // All of a batch: where it has more than one pass at most 2 (tokens + 1).
  size_t Counters(size_t tokens) const { return CountersAt(Count(tokens)); }

  // Sets what `stats` tells of active neurons and of passes, from the counters
  // of a batch. Valid until the next call.
  void Collect(const uint32_t* counters, size_t tokens, FfnStats* stats) {
    const size_t count = Count(tokens);
    stats->union_active_neurons = 0;
    for (size_t i = 0; i < count; ++i) {
      const uint32_t* of_pass = counters + CountersAt(i);
      const size_t pass_tokens = Tokens(i, tokens);
      std::copy_n(of_pass + 1, pass_tokens, &active_[First(i)]);
      passes_[i] = {static_cast<uint32_t>(pass_tokens), of_pass[0]};
      stats->union_active_neurons =
          std::max(stats->union_active_neurons, of_pass[0]);
    }
    stats->active_neurons = absl::MakeConstSpan(active_.data(), tokens);
    stats->passes = absl::MakeConstSpan(passes_.data(), count);
  }

 private:
  const size_t most_;
  std::vector<uint32_t> active_;
  std::vector<FfnPass> passes_;
};

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_BATCH_PASSES_H_
