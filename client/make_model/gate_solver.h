// Gate weights that reproduce given activation rows for given inputs.
#ifndef SPARSE_FFN_CLIENT_MAKE_MODEL_GATE_SOLVER_H_
#define SPARSE_FFN_CLIENT_MAKE_MODEL_GATE_SOLVER_H_

#include <cstddef>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/matrix.h"

namespace sparse_ffn {

// With X [t, hidden] of full row rank, the smallest change of a neuron's row w
// that makes its scores X w equal to targets r is Xᵀ (X Xᵀ)⁻¹ (r - X w). Const
// members may be called from several threads.
class GateSolver {
 public:
  // Memory for one thread's calls of Solve.
  struct Scratch {
    std::vector<float> first;
    std::vector<double> exact;
    std::vector<double> residual;
  };

  // INVALID_ARGUMENT where rows > hidden_size: then no weights give arbitrary
  // scores.
  static absl::Status CheckRows(size_t rows, size_t hidden_size);

  // `inputs`: [t, hidden_size]. INVALID_ARGUMENT where t > hidden_size, or the
  // rows depend on each other, with the same consequence.
  static absl::StatusOr<GateSolver> Create(std::vector<float> inputs,
                                           size_t hidden_size);

  const std::vector<float>& inputs() const { return inputs_; }

  // Changes `row` [hidden_size] and rounds it to `dtype`, so that its score for
  // input i is >= threshold (about wanted[i] where that is larger) exactly
  // where wanted[i] != 0, and below elsewhere. Checked in float64 on the
  // rounded row, with a margin that no order of a float32 summation with at
  // least 8 partial sums can cross. `scale`: typical size of the active scores.
  // FAILED_PRECONDITION where rounding to dtype defeats it.
  absl::Status Solve(const float* wanted, double threshold, double scale,
                     DataType dtype, float* row, Scratch& scratch) const;

 private:
  GateSolver() = default;
  bool Factorise();
  void SolveInPlace(std::vector<double>& vector) const;
  void Correct(const float* wanted, double threshold, double margin, float* row,
               Scratch& scratch) const;
  bool Holds(const float* wanted, double threshold, const float* row,
             Scratch& scratch) const;

  size_t rows_ = 0;
  size_t cols_ = 0;
  std::vector<float> inputs_;         // [rows, cols]
  std::vector<double> exact_inputs_;  // The same.
  std::vector<double> norms_;         // [rows], of the inputs.
  std::vector<double> lower_;         // [rows, rows], Cholesky factor of XXᵀ.
  std::vector<double> lower_columns_;  // Its transpose.
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_MAKE_MODEL_GATE_SOLVER_H_
