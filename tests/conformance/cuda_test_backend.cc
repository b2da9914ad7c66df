#include "tests/conformance/test_backend.h"

namespace sparse_ffn {

const TestBackendTraits& TestBackend() {
  static const TestBackendTraits traits = {
      "cuda", {DataType::kBFloat16, DataType::kFloat16}, true, false};
  return traits;
}

absl::StatusOr<std::unique_ptr<FfnBackend>> NewTestBackend(
    const FfnConfig& config) {
  return NewCudaBackend(config, 0);
}

}  // namespace sparse_ffn
