#include "client/make_model/gate_solver.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/make_model/dot.h"

namespace sparse_ffn {
namespace {

constexpr int kAttempts = 8;
// Of the scale: the first attempt's distance from the threshold.
constexpr double kFirstMargin = 1.0 / 64;
constexpr double kFloatUnit = 0x1p-24;

// Rounds in place to what `dtype` can hold.
void RoundTo(DataType dtype, float* row, size_t size,
             std::vector<float>& scratch) {
  if (dtype == DataType::kFloat32) return;
  scratch.resize(size);
  const Matrix narrow = {scratch.data(), 1, size, dtype};
  const Matrix wide = {row, 1, size, DataType::kFloat32};
  Convert(wide, narrow);
  Convert(narrow, wide);
}

}  // namespace

absl::Status GateSolver::CheckRows(size_t rows, size_t hidden_size) {
  if (rows <= hidden_size) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("expected at most ", hidden_size,
                   " activation rows, as many as the hidden size, found ", rows,
                   ": a neuron has ", hidden_size,
                   " weights and cannot be given more scores than that"));
}

absl::StatusOr<GateSolver> GateSolver::Create(std::vector<float> inputs,
                                              size_t hidden_size) {
  GateSolver solver;
  solver.cols_ = hidden_size;
  solver.rows_ = inputs.size() / hidden_size;
  absl::Status checked = CheckRows(solver.rows_, hidden_size);
  if (!checked.ok()) return checked;
  solver.exact_inputs_.assign(inputs.begin(), inputs.end());
  solver.inputs_ = std::move(inputs);
  if (!solver.Factorise()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "expected ", solver.rows_,
        " independent input rows, found dependent ones; another seed or a "
        "larger hidden size helps"));
  }
  return solver;
}

bool GateSolver::Factorise() {
  lower_.assign(rows_ * rows_, 0);
  lower_columns_.assign(rows_ * rows_, 0);
  for (size_t i = 0; i < rows_; ++i) {
    const double* x_i = exact_inputs_.data() + i * cols_;
    double* lower_i = lower_.data() + i * rows_;
    const double square = Dot(x_i, x_i, cols_);
    norms_.push_back(std::sqrt(square));
    for (size_t j = 0; j <= i; ++j) {
      const double* lower_j = lower_.data() + j * rows_;
      const double product = Dot(x_i, exact_inputs_.data() + j * cols_, cols_) -
                             Dot(lower_i, lower_j, j);
      if (j < i) {
        lower_i[j] = product / lower_j[j];
      } else {
        // Below this, what is left of the row is rounding noise.
        if (!(product > square * 1e-10)) return false;
        lower_i[i] = std::sqrt(product);
      }
      lower_columns_[j * rows_ + i] = lower_i[j];
    }
  }
  return true;
}

void GateSolver::SolveInPlace(std::vector<double>& vector) const {
  for (size_t i = 0; i < rows_; ++i) {
    const double* lower_i = lower_.data() + i * rows_;
    vector[i] = (vector[i] - Dot(lower_i, vector.data(), i)) / lower_i[i];
  }
  for (size_t i = rows_; i-- > 0;) {
    const double* column = lower_columns_.data() + i * rows_;
    vector[i] = (vector[i] -
                 Dot(column + i + 1, vector.data() + i + 1, rows_ - i - 1)) /
                column[i];
  }
}

void GateSolver::Correct(const float* wanted, double threshold, double margin,
                         float* row, Scratch& scratch) const {
  std::vector<double>& change = scratch.residual;
  change.resize(rows_);
  for (size_t i = 0; i < rows_; ++i) {
    const double score = Dot(inputs_.data() + i * cols_, row, cols_);
    // An inactive score keeps its distance from the threshold where it can.
    const double target =
        wanted[i] != 0
            ? std::max<double>(wanted[i], threshold + margin)
            : threshold - std::max(4 * margin, std::abs(score - threshold));
    change[i] = target - score;
  }
  SolveInPlace(change);
  for (size_t i = 0; i < rows_; ++i) {
    AddScaled(static_cast<float>(change[i]), inputs_.data() + i * cols_, row,
              cols_);
  }
}

bool GateSolver::Holds(const float* wanted, double threshold, const float* row,
                       Scratch& scratch) const {
  scratch.exact.assign(row, row + cols_);
  const double norm =
      std::sqrt(Dot(scratch.exact.data(), scratch.exact.data(), cols_));
  const double relative_error =
      (static_cast<double>(cols_) / 8 + 8) * kFloatUnit;
  for (size_t i = 0; i < rows_; ++i) {
    const double score =
        Dot(exact_inputs_.data() + i * cols_, scratch.exact.data(), cols_);
    const double distance =
        wanted[i] != 0 ? score - threshold : threshold - score;
    if (!(distance > relative_error * norm * norms_[i])) return false;
  }
  return true;
}

absl::Status GateSolver::Solve(const float* wanted, double threshold,
                               double scale, DataType dtype, float* row,
                               Scratch& scratch) const {
  double margin = kFirstMargin * scale;
  for (int attempt = 0; attempt < kAttempts; ++attempt, margin *= 2) {
    Correct(wanted, threshold, margin, row, scratch);
    RoundTo(dtype, row, cols_, scratch.first);
    if (Holds(wanted, threshold, row, scratch)) return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "expected weights whose scores keep their side of the threshold when "
      "rounded to ",
      DataTypeName(dtype), ", found none for ", rows_,
      " activation rows and a hidden size of ", cols_,
      "; fewer rows or a wider type help"));
}

}  // namespace sparse_ffn
