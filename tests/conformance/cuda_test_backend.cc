#include "tests/conformance/test_backend.h"

#ifdef SPARSE_FFN_HAVE_CUDA
#include <cuda_runtime_api.h>
#endif

namespace sparse_ffn {
namespace {

// Compute capability 9.0 and newer.
bool HasBulkCopies() {
#ifdef SPARSE_FFN_HAVE_CUDA
  int major = 0;
  const cudaError_t error =
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
  return error == cudaSuccess && major >= 9;
#else
  return false;
#endif
}

}  // namespace

const TestBackendTraits& TestBackend() {
  static const TestBackendTraits traits = {
      "cuda",
      {DataType::kBFloat16, DataType::kFloat16},
      true,
      false,
      false,
      HasBulkCopies(),
      {SparseForm::kSteps, SparseForm::kFused, SparseForm::kFusedPortable}};
  return traits;
}

absl::StatusOr<std::unique_ptr<FfnBackend>> NewTestBackend(
    const FfnConfig& config, SparseForm form) {
  return NewCudaBackend(config, 0, form);
}

}  // namespace sparse_ffn
