// The hardware barriers of a block, of which __syncthreads has number 0: a
// phase ends when kThreads have come, whole warps, some of which wait for it.
#ifndef SPARSE_FFN_KERNELS_CUDA_NAMED_BARRIER_CUH_
#define SPARSE_FFN_KERNELS_CUDA_NAMED_BARRIER_CUH_

#include <cuda_runtime.h>

namespace sparse_ffn::cuda {

constexpr int kHardwareBarriers = 16;

// Without waiting.
template <int kThreads>
__device__ void ArriveAt(int barrier) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "n"(kThreads) : "memory");
}

template <int kThreads>
__device__ void WaitAt(int barrier) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "n"(kThreads) : "memory");
}

// kCount of them from kFirst on, one for each slot of a ring or for each turn:
// some threads tell there that they have filled or left it, and others wait for
// that.
template <int kThreads, int kFirst, int kCount>
struct SlotBarriers {
  static_assert(kFirst >= 1 && kFirst + kCount <= kHardwareBarriers);

  __device__ static void Arrive(int slot) { ArriveAt<kThreads>(kFirst + slot); }
  __device__ static void Await(int slot) { WaitAt<kThreads>(kFirst + slot); }
};

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_NAMED_BARRIER_CUH_
