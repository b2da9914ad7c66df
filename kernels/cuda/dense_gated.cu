#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/launch_steps.h"

namespace sparse_ffn::cuda {
namespace {

constexpr int kThreads = 256;

__device__ void Store(float value, __half* out) {
  *out = __float2half_rn(value);
}
__device__ void Store(float value, __nv_bfloat16* out) {
  *out = __float2bfloat16_rn(value);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    DenseGated(const DenseGatedParams p) {
  const size_t step = static_cast<size_t>(gridDim.x) * kThreads;
  for (size_t i = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x;
       i < p.elements; i += step) {
    const float score = p.scores[i];
    float up = p.up[i];
    if (p.clamp_up && up <= 0) up = 0;
    Store(score == 0 ? 0 : score * up, static_cast<T*>(p.gated) + i);
  }
}

}  // namespace

cudaError_t LaunchDenseGated(const DenseGatedParams& params,
                             cudaStream_t stream) {
  return DispatchElement(params.element, [&](auto element) {
    constexpr size_t kMaxBlocks = 2048;
    const size_t blocks = (params.elements + kThreads - 1) / kThreads;
    DenseGated<decltype(element)>
        <<<static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks),
           kThreads, 0, stream>>>(params);
    return cudaGetLastError();
  });
}

}  // namespace sparse_ffn::cuda
