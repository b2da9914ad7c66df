// Copies from global to shared memory by the copy engine, which count the bytes
// that have arrived on a barrier in shared memory. Compute capability 9.0 and
// newer.
#ifndef SPARSE_FFN_KERNELS_CUDA_BULK_COPY_CUH_
#define SPARSE_FFN_KERNELS_CUDA_BULK_COPY_CUH_

#include <cuda_runtime.h>

#include <cstdint>

namespace sparse_ffn::cuda {

#if __CUDA_ARCH__ >= 900

__device__ inline uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// A phase of the barrier ends with the `arrivals`-th arrival and the last byte
// that was announced.
__device__ inline void InitBarrier(uint64_t* barrier, int arrivals) {
  asm volatile(
      "mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)),
      "r"(arrivals)
      : "memory");
}

// Shows barriers that this thread made to the copy engine, and to other blocks
// of its cluster.
__device__ inline void PublishBarriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// With its count written out: compute-sanitizer's racecheck follows this form
// of the instruction, and no other.
__device__ inline void Arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0], 1;" ::"r"(
                   SharedAddress(barrier))
               : "memory");
}

// What is seen once a phase has ended: what threads of the block did before, or
// of all blocks of the cluster.
enum class WaitScope { kBlock, kCluster };

// Waits for the end of phases 0, 2, 4, ... (parity 0) or 1, 3, ... (parity 1).
// The caller must be at most one phase behind the barrier. Of a new one, parity
// 1 has ended.
template <WaitScope kScope = WaitScope::kBlock>
__device__ inline void Wait(uint64_t* barrier, uint32_t parity) {
  uint32_t done = 0;
  // The scope is part of the instruction's text.
#define SPARSE_FFN_TRY_WAIT(scope)               \
  asm volatile(                                  \
      "{\n"                                      \
      ".reg .pred ended;\n"                      \
      "mbarrier.try_wait.parity" scope           \
      ".shared::cta.b64 ended, [%1], %2;\n"      \
      "selp.u32 %0, 1, 0, ended;\n"              \
      "}"                                        \
      : "=r"(done)                               \
      : "r"(SharedAddress(barrier)), "r"(parity) \
      : "memory")
  while (done == 0) {
    if constexpr (kScope == WaitScope::kBlock) {
      SPARSE_FFN_TRY_WAIT("");
    } else {
      SPARSE_FFN_TRY_WAIT(".acquire.cluster");
    }
  }
#undef SPARSE_FFN_TRY_WAIT
}

// The same without waiting: whether the phase has ended. False again when the
// next one has, too.
__device__ inline bool HasEnded(uint64_t* barrier, uint32_t parity) {
  uint32_t ended = 0;
  asm volatile(
      "{\n"
      ".reg .pred ended;\n"
      "mbarrier.test_wait.parity.shared::cta.b64 ended, [%1], %2;\n"
      "selp.u32 %0, 1, 0, ended;\n"
      "}"
      : "=r"(ended)
      : "r"(SharedAddress(barrier)), "r"(parity)
      : "memory");
  return ended != 0;
}

// Arrives, and announces `bytes` that are to come.
__device__ inline void ArriveFor(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(
                   SharedAddress(barrier)),
               "r"(bytes)
               : "memory");
}

// The same, and starts their copy. Both addresses and the size are multiples
// of 16. What was in `to` must have been read by then.
__device__ inline void CopyBulk(void* to, const void* from, uint32_t bytes,
                                uint64_t* barrier) {
  ArriveFor(barrier, bytes);
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1], %2, [%3];" ::"r"(SharedAddress(to)),
      "l"(__cvta_generic_to_global(from)), "r"(bytes),
      "r"(SharedAddress(barrier))
      : "memory");
}

// Brings `bytes` from there into the L2; address and size as above.
__device__ inline void PrefetchBulk(const void* from, uint32_t bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(
                   __cvta_generic_to_global(from)),
               "r"(bytes)
               : "memory");
}

#endif  // __CUDA_ARCH__ >= 900

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_BULK_COPY_CUH_
