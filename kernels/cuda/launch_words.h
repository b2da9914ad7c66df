// What the host and its launches tell each other, in page-locked memory.
#ifndef SPARSE_FFN_KERNELS_CUDA_LAUNCH_WORDS_H_
#define SPARSE_FFN_KERNELS_CUDA_LAUNCH_WORDS_H_

#include <utility>

#include "absl/status/statusor.h"
#include "kernels/cuda/cuda_handles.h"

namespace sparse_ffn::cuda {

// Of one stream; move-only, used by one thread at a time. Launches made ahead
// are known by their AheadParams::number, all others by kNotAhead.
class LaunchWords {
 public:
  static absl::StatusOr<LaunchWords> New();

  // FusedSumParams::done and SmallCopyParams::done.
  int* done() const { return &words().done; }
  // AheadParams::word.
  const int* ahead() const { return &words().ahead; }

  // Forgets what was said: before a launch that is not made ahead and says that
  // it is done.
  void ClearDone() const;
  // To the launch made ahead that is known by `number`.
  void Tell(int number, bool runs) const;
  // Whether it is known to have left without having been told to.
  bool HasLeft(int number) const;
  // Until the launch known by `number` is over: whether it ran. `later`: as in
  // OutcomeOf(). The error of `stream`, or INTERNAL where that ended and
  // nothing was said.
  absl::StatusOr<bool> Await(int number, int later, cudaStream_t stream) const;

 private:
  explicit LaunchWords(PinnedMemory memory) : memory_(std::move(memory)) {}

  struct Words {
    int done = 0;
    alignas(64) int ahead = 0;
  };

  Words& words() const { return *reinterpret_cast<Words*>(memory_.get()); }

  PinnedMemory memory_;
};

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_LAUNCH_WORDS_H_
