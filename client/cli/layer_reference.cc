#include "client/cli/layer_reference.h"

#include <vector>

namespace sparse_ffn {
namespace {

// A view of `source` where it has the type already, else of a rounded copy.
ConstMatrix Rounded(ConstMatrix source, DataType dtype,
                    std::vector<std::byte>* copy) {
  if (source.dtype == dtype) return source;
  copy->resize(source.rows * source.cols * DataTypeBytes(dtype));
  const Matrix rounded = {copy->data(), source.rows, source.cols, dtype};
  Convert(source, rounded);
  return rounded;
}

}  // namespace

void RowsComparison::Merge(const RowsComparison& other) {
  if (other.worst_ratio > worst_ratio) {
    worst_ratio = other.worst_ratio;
    worst_error = other.worst_error;
    worst_tolerance = other.worst_tolerance;
  }
  missed_elements += other.missed_elements;
  rows += other.rows;
  active_neurons += other.active_neurons;
  oracle_active_neurons += other.oracle_active_neurons;
  borderline_neurons += other.borderline_neurons;
  miscounted_rows += other.miscounted_rows;
}

absl::StatusOr<LayerReference> LayerReference::Compute(
    const LayerTensors& tensors, const ServerArithmetic& server,
    ConstMatrix rows) {
  std::vector<std::byte> copies[4];
  const DataType dtype = server.weights_dtype;
  const OracleLayer layer = {Rounded(tensors.gate_proj, dtype, &copies[0]),
                             Rounded(tensors.up_proj, dtype, &copies[1]),
                             Rounded(tensors.down_proj, dtype, &copies[2]),
                             server.activation, server.threshold};
  absl::StatusOr<OracleResult> expected =
      RunOracle(layer, Rounded(rows, dtype, &copies[3]), /*threads=*/0);
  if (!expected.ok()) return expected.status();
  return LayerReference(*std::move(expected), server.rounds_gated);
}

GatedAs LayerReference::Gated(const v1::ForwardStats& stats) const {
  if (!rounds_gated_) return GatedAs::kFloat32;
  if (stats.path() == "dense") return GatedAs::kOneOfWeightsType;
  // A deterministic batch keeps float32, which the reply does not tell.
  return stats.batch_tokens() > 1 ? GatedAs::kTwoOfWeightsType
                                  : GatedAs::kFloat32;
}

RowsComparison LayerReference::Compare(size_t first, ConstMatrix served,
                                       const v1::ForwardStats& stats) const {
  const Comparison values =
      sparse_ffn::Compare(expected_, first, served, Gated(stats));
  RowsComparison comparison;
  comparison.worst_ratio = values.worst_ratio;
  comparison.worst_error = values.worst_error;
  comparison.worst_tolerance = values.worst_tolerance;
  comparison.missed_elements = values.misses;
  comparison.rows = served.rows;
  for (size_t row = 0; row < served.rows; ++row) {
    const uint32_t active = stats.active_neurons(static_cast<int>(row));
    comparison.active_neurons += active;
    comparison.oracle_active_neurons += expected_.active_neurons[first + row];
    comparison.borderline_neurons += expected_.borderline_neurons[first + row];
    if (!ActiveCountAgrees(expected_, first + row, active)) {
      ++comparison.miscounted_rows;
    }
  }
  return comparison;
}

}  // namespace sparse_ffn
