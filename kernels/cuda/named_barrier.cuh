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

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_NAMED_BARRIER_CUH_
