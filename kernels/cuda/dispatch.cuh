// From run-time parameters to template arguments: the one switch between the
// host's view and the kernels.
#ifndef SPARSE_FFN_KERNELS_CUDA_DISPATCH_CUH_
#define SPARSE_FFN_KERNELS_CUDA_DISPATCH_CUH_

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/launch.h"

namespace sparse_ffn::cuda {

// Tokens whose sums a warp keeps in registers at once.
constexpr int kMaxTokenBlock = 8;

// Calls f(T{}) with T = __half or __nv_bfloat16.
template <typename F>
cudaError_t DispatchElement(Element element, F&& f) {
  return element == Element::kFloat16 ? f(__half{}) : f(__nv_bfloat16{});
}

// Calls f with the smallest of 1, 2, 4, 8 that holds `tokens`, else 8, as an
// integral constant.
template <typename F>
cudaError_t DispatchTokenBlock(int tokens, F&& f) {
  if (tokens <= 1) return f(std::integral_constant<int, 1>{});
  if (tokens <= 2) return f(std::integral_constant<int, 2>{});
  if (tokens <= 4) return f(std::integral_constant<int, 4>{});
  return f(std::integral_constant<int, kMaxTokenBlock>{});
}

// Calls f with the token tiles, 8 tokens each, of the batch form for `tokens`.
template <typename F>
cudaError_t DispatchTokenTiles(int tokens, F&& f) {
  switch (BatchFormTokens(tokens)) {
    case kBatchForms[0]:
      return f(std::integral_constant<int, kBatchForms[0] / 8>{});
    case kBatchForms[1]:
      return f(std::integral_constant<int, kBatchForms[1] / 8>{});
    default:
      return f(std::integral_constant<int, kBatchFormTokens / 8>{});
  }
}

// Calls f with each of those in turn, until an error.
template <typename F>
cudaError_t ForEachTokenTiles(F&& f) {
  for (int tokens : kBatchForms) {
    const cudaError_t error = DispatchTokenTiles(tokens, f);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

// Whether every row of a matrix of 2-byte elements can be read in 16-byte
// loads.
inline bool RowsAligned(int hidden_size) { return hidden_size % kPack == 0; }

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_DISPATCH_CUH_
