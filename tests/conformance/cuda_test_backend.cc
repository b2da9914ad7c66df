#include "tests/conformance/test_backend.h"

#ifdef SPARSE_FFN_HAVE_CUDA
#include <cuda_runtime_api.h>
#endif

namespace sparse_ffn {
namespace {

// As README.md says of the fused path: compute capability 9.0 or newer, 220 KB
// of shared memory a block.
bool FusesBatches() {
#ifdef SPARSE_FFN_HAVE_CUDA
  int major = 0;
  int shared_bytes = 0;
  const bool known =
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) ==
          cudaSuccess &&
      cudaDeviceGetAttribute(&shared_bytes,
                             cudaDevAttrMaxSharedMemoryPerBlockOptin,
                             0) == cudaSuccess;
  return known && major >= 9 && shared_bytes >= 220 << 10;
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
      FusesBatches(),
      {SparseForm::kSteps, SparseForm::kFused, SparseForm::kFusedPortable}};
  return traits;
}

absl::StatusOr<std::unique_ptr<FfnBackend>> NewTestBackend(
    const FfnConfig& config, SparseForm form) {
  return NewCudaBackend(config, 0, form);
}

}  // namespace sparse_ffn
