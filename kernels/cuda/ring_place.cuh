// A place in a ring of slots.
#ifndef SPARSE_FFN_KERNELS_CUDA_RING_PLACE_CUH_
#define SPARSE_FFN_KERNELS_CUDA_RING_PLACE_CUH_

#include <cuda_runtime.h>

#include <cstdint>

namespace sparse_ffn::cuda {

// Of slots whose barriers go through phases.
struct RingPlace {
  int slot = 0;
  uint32_t parity = 0;  // Of the slot's next phase.

  __device__ void Advance(int slots) {
    if (++slot < slots) return;
    slot = 0;
    parity ^= 1;
  }
};

// Of the one who fills the slots, and gets them back at hardware barriers.
struct FillPlace : RingPlace {
  bool first_turn = true;  // The slot has not been filled yet.

  __device__ void Advance(int slots) {
    RingPlace::Advance(slots);
    if (slot == 0) first_turn = false;
  }
  // How many of the slots have been filled.
  __device__ int Used(int slots) const { return first_turn ? slot : slots; }
  // Calls await for the slots that are still to come back, but not for this
  // one: no barrier is left half full.
  template <typename F>
  __device__ void AwaitOthers(int slots, F&& await) const {
    const int used = Used(slots);
    for (int other = 0; other < used; ++other) {
      if (other != slot) await(other);
    }
  }
};

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_RING_PLACE_CUH_
