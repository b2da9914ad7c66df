// A batch of more tokens than may run at once, in passes: as many side by side
// as may, one pass after the other.
#ifndef SPARSE_FFN_KERNELS_CUDA_BATCH_PASSES_H_
#define SPARSE_FFN_KERNELS_CUDA_BATCH_PASSES_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/ffn_backend.h"

namespace sparse_ffn::cuda {

// Counters of so many tokens, and that of their union, as ints: whole packs of
// 16 bytes.
constexpr size_t CounterStride(size_t tokens) {
  return (1 + tokens + 3) / 4 * 4;
}

class BatchPasses {
 public:
  // Of batches of up to `max_tokens`, with up to `pass_tokens` in each pass.
  BatchPasses(size_t max_tokens, size_t pass_tokens)
      : pass_tokens_(pass_tokens),
        active_(max_tokens),
        passes_(Count(max_tokens)) {}

  size_t Count(size_t tokens) const {
    return (tokens + pass_tokens_ - 1) / pass_tokens_;
  }
  // The first token of pass `i`, and how many it has, in a batch of `tokens`.
  size_t First(size_t i) const { return i * pass_tokens_; }
  size_t Tokens(size_t i, size_t tokens) const {
    return std::min(pass_tokens_, tokens - First(i));
  }
  // Its first counter, among those of the batch: how many neurons are active
  // for some of its tokens; those for each token follow.
  size_t FirstCounter(size_t i) const {
    return i * CounterStride(pass_tokens_);
  }
  // Of all passes, with gaps.
  size_t Counters(size_t tokens) const { return FirstCounter(Count(tokens)); }

  // Sets what `stats` tells of active neurons and of passes, from the counters
  // of a batch. Valid until the next call.
  void Collect(const uint32_t* counters, size_t tokens, FfnStats* stats) {
    const size_t passes = Count(tokens);
    stats->union_active_neurons = 0;
    for (size_t i = 0; i < passes; ++i) {
      const uint32_t* of_pass = counters + FirstCounter(i);
      const size_t count = Tokens(i, tokens);
      std::copy_n(of_pass + 1, count, &active_[First(i)]);
      passes_[i] = {static_cast<uint32_t>(count), of_pass[0]};
      stats->union_active_neurons =
          std::max(stats->union_active_neurons, of_pass[0]);
    }
    stats->active_neurons = absl::MakeConstSpan(active_.data(), tokens);
    stats->passes = absl::MakeConstSpan(passes_.data(), passes);
  }

 private:
  const size_t pass_tokens_;
  std::vector<uint32_t> active_;
  std::vector<FfnPass> passes_;
};

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_BATCH_PASSES_H_
