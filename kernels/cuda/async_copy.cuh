// Copies from global to shared memory that need no registers, 16 bytes each, in
// groups that complete in order.
#ifndef SPARSE_FFN_KERNELS_CUDA_ASYNC_COPY_CUH_
#define SPARSE_FFN_KERNELS_CUDA_ASYNC_COPY_CUH_

#include <cuda_runtime.h>

#include <cstdint>

namespace sparse_ffn::cuda {

// Both addresses are multiples of 16. Zeros arrive instead where `exists` is
// false; `from` must point into some allocation all the same.
__device__ inline void CopyPack(void* to, const void* from, bool exists) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(to))),
               "l"(from), "r"(exists ? 16 : 0)
               : "memory");
}

// Ends a group: this thread's copies since the last one.
__device__ inline void EndCopies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until all but the newest `kNewest` groups of this thread are there.
template <int kNewest>
__device__ inline void AwaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kNewest) : "memory");
}

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_ASYNC_COPY_CUH_
