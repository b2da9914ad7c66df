// Blocks of a cluster, which run at once and reach each other's shared memory.
// Compute capability 9.0 and newer.
#ifndef SPARSE_FFN_KERNELS_CUDA_CLUSTER_CUH_
#define SPARSE_FFN_KERNELS_CUDA_CLUSTER_CUH_

#include "kernels/cuda/bulk_copy.cuh"

namespace sparse_ffn::cuda {

#if __CUDA_ARCH__ >= 900

__device__ inline int BlockInCluster() {
  int block;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(block));
  return block;
}

// By all threads of the cluster that have not ended.
__device__ inline void SyncCluster() {
  asm volatile("barrier.cluster.arrive.release;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}

// Where `block` of the cluster has what this one has at `shared`.
__device__ inline uint32_t AddressIn(int block, const void* shared) {
  uint32_t address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;"
      : "=r"(address)
      : "r"(SharedAddress(shared)), "r"(block));
  return address;
}

#endif  // __CUDA_ARCH__ >= 900

// For one word from another block of the cluster.
struct Mailbox {
  uint64_t barrier;
  int word;

#if __CUDA_ARCH__ >= 900
  // By one thread, then SyncCluster(), and by one thread again, by when the
  // word may have come.
  __device__ void Init() { InitBarrier(&barrier, 1); }
  __device__ void Expect() { ArriveFor(&barrier, sizeof(word)); }
  // By one thread: to `block`, in its mailbox of the same place.
  __device__ void SendTo(int block, int value) {
    asm volatile(
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.s32 "
        "[%0], %1, [%2];" ::"r"(AddressIn(block, &word)),
        "r"(value), "r"(AddressIn(block, &barrier))
        : "memory");
  }
  __device__ int Read() {
    Wait(&barrier, 0);
    return *static_cast<volatile int*>(&word);
  }
#endif
};

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_CLUSTER_CUH_
