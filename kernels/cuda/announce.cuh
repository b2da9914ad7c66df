// How the host hears that a launch is done, sooner than the stream says so.
#ifndef SPARSE_FFN_KERNELS_CUDA_ANNOUNCE_CUH_
#define SPARSE_FFN_KERNELS_CUDA_ANNOUNCE_CUH_

#include "kernels/cuda/launch.h"
#include "kernels/cuda/launch_outcome.h"

namespace sparse_ffn::cuda {

// By one thread of each block, after a barrier behind all that the block stored
// in the host's memory: the last one sets the host's word, as FusedSumParams
// has it. `left`: made ahead, the launches are left.
__device__ inline void Announce(FusedState* state, int* done, int ahead_number,
                                bool left) {
  __threadfence_system();
  if (atomicAdd(&state->blocks_done, 1) + 1 < static_cast<int>(gridDim.x)) {
    return;
  }
  state->blocks_done = 0;
  // Each block's results were in the host's memory before it counted itself,
  // by its own fence, and those of earlier launches when they had ended.
  __threadfence();
  const int number = ahead_number == 0 ? kNotAhead : ahead_number;
  *static_cast<volatile int*>(done) = left ? -number : number;
}

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_ANNOUNCE_CUH_
