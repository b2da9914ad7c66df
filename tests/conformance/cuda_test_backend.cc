#include "tests/conformance/test_backend.h"

namespace sparse_ffn {

const TestBackendTraits& TestBackend() {
  static const TestBackendTraits traits = {
      "cuda",
      {DataType::kBFloat16, DataType::kFloat16},
      true,
      false,
      false,
      {SparseForm::kSteps, SparseForm::kFused, SparseForm::kFusedPortable}};
  return traits;
}

absl::StatusOr<std::unique_ptr<FfnBackend>> NewTestBackend(
    const FfnConfig& config, SparseForm form) {
  return NewCudaBackend(config, 0, form);
}

}  // namespace sparse_ffn
