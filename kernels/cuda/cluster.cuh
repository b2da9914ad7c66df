// Blocks of a cluster, which run at once and reach each other's shared memory.
// Compute capability 9.0 and newer.
#ifndef SPARSE_FFN_KERNELS_CUDA_CLUSTER_CUH_
#define SPARSE_FFN_KERNELS_CUDA_CLUSTER_CUH_

#include "kernels/cuda/bulk_copy.cuh"
#include "kernels/cuda/element.cuh"

namespace sparse_ffn::cuda {

#if __CUDA_ARCH__ >= 900

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

// For words from another block of the cluster, one after the other. A sender
// may be kPlaces ahead of its reader, and has to know that it is no more; a
// block ends when it has read all.
struct Mailbox {
  static constexpr int kPlaces = 2;

  uint64_t full[kPlaces];
  int words[kPlaces];

#if __CUDA_ARCH__ >= 900
  // By one thread, then SyncCluster(), and by one thread again. Not both
  // before: compute-sanitizer's racecheck wants something between.
  __device__ void Init() {
    for (uint64_t& barrier : full) InitBarrier(&barrier, 1);
  }
  __device__ void Expect() {
    for (uint64_t& barrier : full) ArriveFor(&barrier, sizeof(int));
  }
  // By one thread: word number i, from 0, to `block`, in its mailbox of the
  // same place.
  __device__ void SendTo(int block, int i, int word) {
    asm volatile(
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.s32 "
        "[%0], %1, [%2];" ::"r"(AddressIn(block, &words[i % kPlaces])),
        "r"(word), "r"(AddressIn(block, &full[i % kPlaces]))
        : "memory");
  }
  // By one warp: word number i.
  __device__ int Read(int i) {
    uint64_t* barrier = &full[i % kPlaces];
    Wait<WaitScope::kCluster>(barrier, i / kPlaces % 2);
    const int word = words[i % kPlaces];
    __syncwarp();
    if (threadIdx.x % kWarp == 0) ArriveFor(barrier, sizeof(int));
    return word;
  }
#endif
};

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_CLUSTER_CUH_
