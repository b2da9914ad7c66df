// The backend that a conformance program is linked with.
#ifndef SPARSE_FFN_TESTS_CONFORMANCE_TEST_BACKEND_H_
#define SPARSE_FFN_TESTS_CONFORMANCE_TEST_BACKEND_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/ffn_backend.h"

namespace sparse_ffn {

struct TestBackendTraits {
  const char* name;
  std::vector<DataType> weights_dtypes;
  // Whether h is rounded to the type of the weights: in the dense path once, in
  // sparse batches to the sum of two.
  bool rounds_gated;
  // Whether equal batches give equal bits.
  bool repeats_bit_for_bit;
  // Whether the bits of a token depend on its hidden states and the weights
  // alone.
  bool independent_of_batch;
  // Whether sparse batches of several tokens run fused, those of two so that
  // the bits of each depend on nothing else.
  bool fuses_batches;
  // Ways to run sparse batches, beside the backend's own choice.
  std::vector<SparseForm> sparse_forms;
};

const TestBackendTraits& TestBackend();

absl::StatusOr<std::unique_ptr<FfnBackend>> NewTestBackend(
    const FfnConfig& config, SparseForm form = SparseForm::kAuto);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_TESTS_CONFORMANCE_TEST_BACKEND_H_
