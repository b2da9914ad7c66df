// What one layer of a checkpoint gives for some rows, in double precision, and
// how well a server's answers agree with it.
#ifndef SPARSE_FFN_CLIENT_CLI_LAYER_REFERENCE_H_
#define SPARSE_FFN_CLIENT_CLI_LAYER_REFERENCE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "client/cli/oracle.h"
#include "kernels/matrix.h"
#include "server/checkpoint/checkpoint.h"
#include "sparse_ffn/v1/ffn.pb.h"

namespace sparse_ffn {

// How the server computes, as it says itself.
struct ServerArithmetic {
  DataType weights_dtype = DataType::kFloat32;
  std::string activation;
  float threshold = 0;
  // Kernels of batches round h to the type of the weights: the dense ones once,
  // the sparse ones to the sum of two.
  bool rounds_gated = false;
};

// Served rows against the reference: of several rows the sums, and the element
// that is worst for its tolerance.
struct RowsComparison {
  double worst_ratio = 0;  // Error over tolerance: a miss where above 1.
  double worst_error = 0;
  double worst_tolerance = 0;
  uint64_t missed_elements = 0;
  uint64_t rows = 0;
  uint64_t active_neurons = 0;  // As the server counted.
  uint64_t oracle_active_neurons = 0;
  uint64_t borderline_neurons = 0;  // Too near the threshold to be sure of.
  uint64_t miscounted_rows = 0;     // Beyond what borderline ones explain.

  bool passed() const { return missed_elements == 0 && miscounted_rows == 0; }
  void Merge(const RowsComparison& other);
};

class LayerReference {
 public:
  // `rows` are the hidden states as they are sent. They and the weights are
  // rounded to the type of the server's weights first, as the server does.
  // Uses every processor. INVALID_ARGUMENT for an unknown activation.
  static absl::StatusOr<LayerReference> Compute(const LayerTensors& tensors,
                                                const ServerArithmetic& server,
                                                ConstMatrix rows);

  // Compares `served`, the answer to the rows `first`, `first` + 1, ..., and
  // the active count of each, which `stats` has for every row of `served`. The
  // rounding to the type of `served` is allowed for. A value that is not finite
  // is a miss.
  RowsComparison Compare(size_t first, ConstMatrix served,
                         const v1::ForwardStats& stats) const;

 private:
  LayerReference(OracleResult expected, bool rounds_gated)
      : expected_(std::move(expected)), rounds_gated_(rounds_gated) {}

  GatedAs Gated(const v1::ForwardStats& stats) const;

  OracleResult expected_;
  bool rounds_gated_;
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_CLI_LAYER_REFERENCE_H_
