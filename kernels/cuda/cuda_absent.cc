// Stands in for the CUDA backend in a build without a CUDA toolkit.
#include "kernels/ffn_backend.h"

namespace sparse_ffn {

absl::StatusOr<std::unique_ptr<FfnBackend>> NewCudaBackend(
    const FfnConfig& /*config*/, int /*device*/, SparseForm /*form*/) {
  return absl::UnavailableError(
      "this build has no CUDA backend; build it where a CUDA toolkit is found, "
      "or run with --backend cpu");
}

}  // namespace sparse_ffn
