// Sums of four columns side by side.
#ifndef SPARSE_FFN_KERNELS_CUDA_ADD_QUAD_CUH_
#define SPARSE_FFN_KERNELS_CUDA_ADD_QUAD_CUH_

#include <cuda_runtime.h>

namespace sparse_ffn::cuda {

__device__ inline void AddQuad(float4* sum, const float4& quad) {
  sum->x += quad.x;
  sum->y += quad.y;
  sum->z += quad.z;
  sum->w += quad.w;
}

// To an output that several blocks add to, 16-byte aligned.
__device__ inline void AddQuad(float* output, const float4& sum) {
// The vector form came with CUDA 12.1.
#if __CUDA_ARCH__ >= 900 && \
    __CUDACC_VER_MAJOR__ * 100 + __CUDACC_VER_MINOR__ >= 1201
  asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(
                   __cvta_generic_to_global(output)),
               "f"(sum.x), "f"(sum.y), "f"(sum.z), "f"(sum.w)
               : "memory");
#else
  atomicAdd(output, sum.x);
  atomicAdd(output + 1, sum.y);
  atomicAdd(output + 2, sum.z);
  atomicAdd(output + 3, sum.w);
#endif
}

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_ADD_QUAD_CUH_
