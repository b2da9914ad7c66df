// Launches made ahead of their batch: AheadParams.
#ifndef SPARSE_FFN_KERNELS_CUDA_AHEAD_CUH_
#define SPARSE_FFN_KERNELS_CUDA_AHEAD_CUH_

#include "kernels/cuda/launch.h"

namespace sparse_ffn::cuda {

__device__ inline unsigned long long Nanoseconds() {
  unsigned long long now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  return now;
}

// By one thread of all that wait: whether the batch has come. A look takes
// about 2 microseconds; with several on their way the host's own store takes
// longer than they save.
__device__ inline bool AwaitWord(const AheadParams& ahead) {
  const unsigned long long start = Nanoseconds();
  while (true) {
    int word;
    asm volatile("ld.acquire.sys.global.s32 %0, [%1];"
                 : "=r"(word)
                 : "l"(ahead.word)
                 : "memory");
    if (word == ahead.number) return true;
    if (word == -ahead.number || Nanoseconds() - start > ahead.patience_ns) {
      return false;
    }
  }
}

// Behind the launch that waits, when that has ended: whether it was left.
// `number`: its AheadParams::number.
__device__ inline bool WasLeft(const FusedState* state, int number) {
  if (number == 0) return false;
  int left;
  asm volatile("ld.global.cg.s32 %0, [%1];" : "=r"(left) : "l"(&state->left));
  return left == number;
}

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_AHEAD_CUH_
