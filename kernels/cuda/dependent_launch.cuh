// Programmatic dependent launch: on compute capability 9.0 and newer a kernel
// may start while its predecessor in the stream still runs, and waits by itself
// before it touches what the predecessor wrote. Elsewhere both are no-ops and
// the launch is an ordinary one.
#ifndef SPARSE_FFN_KERNELS_CUDA_DEPENDENT_LAUNCH_CUH_
#define SPARSE_FFN_KERNELS_CUDA_DEPENDENT_LAUNCH_CUH_

#include <cuda_runtime.h>

namespace sparse_ffn::cuda {

// Lets the next kernel of the stream start as soon as every block has called
// this or ended. One thread a block is enough.
__device__ inline void AllowSuccessor() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Waits until the previous kernel has finished and its writes are seen.
__device__ inline void AwaitPredecessor() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Both.
__device__ inline void WaitForPredecessor() {
  AllowSuccessor();
  AwaitPredecessor();
}

// Lets blocks of `kernel` have that much dynamic shared memory.
template <typename Kernel>
cudaError_t AllowShared(Kernel kernel, int bytes) {
  return cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

// Launches `kernel`. Until it has waited for its predecessor it may read only
// what had been written before that called AllowSuccessor, such as weights, and
// must not write but where no earlier launch can still be at work, as
// FusedBulkTakes sees to.
// Some thread of it must wait, also where nothing depends on the predecessor:
// later kernels rely on that. `overlap`: the device has compute capability 9.0
// or newer. `cluster_blocks`: more than 1 only there; of them the grid is a
// multiple.
template <typename Params>
cudaError_t LaunchDependent(void (*kernel)(Params), dim3 grid, int threads,
                            size_t shared_bytes, bool overlap,
                            cudaStream_t stream, const Params& params,
                            unsigned cluster_blocks = 1) {
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {cluster_blocks, 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  if (overlap) config.numAttrs = cluster_blocks == 1 ? 1 : 2;
  return cudaLaunchKernelEx(&config, kernel, params);
}

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_DEPENDENT_LAUNCH_CUH_
