// The dense products, through cuBLAS. The library is opened at run time, so
// that programs of a build with CUDA also start where it is missing.
#ifndef SPARSE_FFN_KERNELS_CUDA_CUBLAS_H_
#define SPARSE_FFN_KERNELS_CUDA_CUBLAS_H_

#include <cublas_v2.h>

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/cuda_handles.h"
#include "kernels/cuda/launch.h"

namespace sparse_ffn::cuda {

// A row-major product on one stream, with float32 sums and results.
// Move-only; used by one thread at a time.
class Cublas {
 public:
  // UNAVAILABLE where the library is not found: the message names it.
  static absl::StatusOr<Cublas> New(cudaStream_t stream);

  // out[tokens, n] = x[tokens, k] * weights[n, k]^T, queued on the stream.
  // One row is a matrix-vector product.
  absl::Status ProductWithRows(Element element, int tokens, int n, int k,
                               const void* x, const void* weights,
                               float* out) const;

  // out[tokens, n] = x[tokens, k] * weights[k, n], queued on the stream.
  absl::Status Product(Element element, int tokens, int n, int k, const void* x,
                       const void* weights, float* out) const;

 private:
  struct HandleDeleter {
    using pointer = cublasHandle_t;
    void operator()(cublasHandle_t handle) const;
  };

  Cublas() = default;

  DeviceMemory workspace_;
  std::unique_ptr<cublasHandle_t, HandleDeleter> handle_;
};

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_CUBLAS_H_
