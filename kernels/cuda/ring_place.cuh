// A place in a ring of slots whose barriers go through phases.
#ifndef SPARSE_FFN_KERNELS_CUDA_RING_PLACE_CUH_
#define SPARSE_FFN_KERNELS_CUDA_RING_PLACE_CUH_

#include <cuda_runtime.h>

#include <cstdint>

namespace sparse_ffn::cuda {

struct RingPlace {
  int slot = 0;
  uint32_t parity = 0;  // Of the slot's next phase.

  __device__ void Advance(int slots) {
    if (++slot < slots) return;
    slot = 0;
    parity ^= 1;
  }
};

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_RING_PLACE_CUH_
