#include "tests/conformance/test_backend.h"

namespace sparse_ffn {

const TestBackendTraits& TestBackend() {
  static const TestBackendTraits traits = {
      "cuda", {DataType::kBFloat16, DataType::kFloat16},
      true,   false,
      false,  {OneToken::kSteps, OneToken::kFused, OneToken::kFusedPortable}};
  return traits;
}

absl::StatusOr<std::unique_ptr<FfnBackend>> NewTestBackend(
    const FfnConfig& config, OneToken one_token) {
  return NewCudaBackend(config, 0, one_token);
}

}  // namespace sparse_ffn
