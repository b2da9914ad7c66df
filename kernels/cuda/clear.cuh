// What the launch that begins a batch clears.
#ifndef SPARSE_FFN_KERNELS_CUDA_CLEAR_CUH_
#define SPARSE_FFN_KERNELS_CUDA_CLEAR_CUH_

#include <cuda_runtime.h>

namespace sparse_ffn::cuda {

// By the first kThreads threads of all blocks: the counters of the batch after
// this one, and the output. `params` as CudaSteps::FillBegin fills them.
template <int kThreads, typename Params>
__device__ void ClearForBatch(const Params& params, int output_size) {
  const int thread = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  const int threads = static_cast<int>(gridDim.x) * kThreads;
  for (int i = thread; i < params.next_count; i += threads) {
    params.next_counters[i] = 0;
  }
  for (int i = thread; i < output_size; i += threads) params.output[i] = 0;
}

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_CLEAR_CUH_
