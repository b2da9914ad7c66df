#include "tests/conformance/test_backend.h"

namespace sparse_ffn {

const TestBackendTraits& TestBackend() {
  static const TestBackendTraits traits = {
      "cpu", {DataType::kBFloat16, DataType::kFloat16, DataType::kFloat32},
      false, true,
      true,  false,
      {}};
  return traits;
}

absl::StatusOr<std::unique_ptr<FfnBackend>> NewTestBackend(
    const FfnConfig& config, SparseForm /*form*/) {
  return NewCpuBackend(config, 3);
}

}  // namespace sparse_ffn
