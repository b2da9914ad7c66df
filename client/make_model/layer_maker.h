// Makes the matrices of one layer, one at a time.
#ifndef SPARSE_FFN_CLIENT_MAKE_MODEL_LAYER_MAKER_H_
#define SPARSE_FFN_CLIENT_MAKE_MODEL_LAYER_MAKER_H_

#include <cstddef>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/counter_random.h"
#include "client/make_model/gate_distribution.h"
#include "client/make_model/gate_solver.h"
#include "client/make_model/model_spec.h"
#include "kernels/matrix.h"
#include "server/checkpoint/tensor_names.h"

namespace sparse_ffn {

class LayerMaker {
 public:
  // Reads the replay file, where the spec names one. May throw std::bad_alloc:
  // it takes the memory of a matrix, so that no file is begun without that.
  static absl::StatusOr<LayerMaker> Create(const ModelSpec& spec);

  // What inputs.npy holds; rows() of hidden_size.
  const std::vector<float>& inputs() const { return inputs_; }
  size_t rows() const { return inputs_.size() / spec_.hidden_size; }

  // Makes a matrix as torch stores it: down_proj is [hidden, intermediate]. The
  // view is overwritten by the next call.
  absl::StatusOr<ConstMatrix> Make(size_t layer, Projection projection);

 private:
  using RowMaker =
      std::function<absl::Status(size_t row, size_t worker, float* values)>;

  LayerMaker(const ModelSpec& spec, GateDistribution gate)
      : spec_(spec), gate_(gate) {
    matrix_.reserve(spec.intermediate_size * spec.hidden_size *
                    DataTypeBytes(spec.dtype));
  }
  absl::Status MakeRows(size_t rows, size_t cols, const RowMaker& make_row);
  absl::Status MakeGate(const CounterRandom& random);
  absl::Status MakeNormal(const CounterRandom& random, size_t rows,
                          size_t cols);

  ModelSpec spec_;
  GateDistribution gate_;
  std::vector<float> inputs_;
  // With a replay:
  std::optional<GateSolver> solver_;
  std::vector<float> wanted_;  // [neurons, rows]
  double score_scale_ = 0;
  std::vector<std::byte> matrix_;
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_MAKE_MODEL_LAYER_MAKER_H_
