// How the batch forms keep h between steps 2 and 3.
#ifndef SPARSE_FFN_KERNELS_CUDA_SPLIT_GATED_CUH_
#define SPARSE_FFN_KERNELS_CUDA_SPLIT_GATED_CUH_

#include <cstddef>

#include "kernels/cuda/element.cuh"

namespace sparse_ffn::cuda {

// As two 2-byte floats whose sum is h to 16 bits or more.
template <typename T>
__device__ inline void StoreGated(void* gated_high, void* gated_low, size_t at,
                                  float h) {
  const T high = T(h);
  static_cast<T*>(gated_high)[at] = high;
  static_cast<T*>(gated_low)[at] = T(h - ToFloat(high));
}

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_SPLIT_GATED_CUH_
