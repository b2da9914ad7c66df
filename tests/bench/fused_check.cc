#include "tests/bench/fused_check.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_lane.h"
#include "tests/bench/bench_figures.h"

namespace sparse_ffn::bench {
namespace {

// A neuron too many or too few weighs hundreds of times as much.
constexpr double kMostError = 1e-4;

struct Answer {
  std::vector<float> output;
  uint32_t active = 0;
};

absl::StatusOr<Answer> Run(TimedModel* model, FfnLane* lane, int layer,
                           SparseForm form) {
  model->cuda_model().sparse_form = form;
  auto result = lane->Run(layer, 1, Execution::kSparse);
  if (!result.ok()) return result.status();
  const auto* output = static_cast<const float*>(result->output.data);
  return Answer{{output, output + result->output.cols},
                result->stats.active_neurons[0]};
}

// The relative error of one token.
absl::StatusOr<double> CheckToken(TimedModel* model, FfnLane* lane, int layer) {
  auto expected = Run(model, lane, layer, SparseForm::kSteps);
  if (!expected.ok()) return expected.status();
  auto fused = Run(model, lane, layer, SparseForm::kFused);
  if (!fused.ok()) return fused.status();
  const double error = RelativeError(fused->output, expected->output);
  if (fused->active == expected->active && error <= kMostError) return error;
  return absl::InternalError(absl::StrCat(
      "layer ", layer, ": ", fused->active, " active neurons fused, ",
      expected->active, " in steps; relative error ", error));
}

}  // namespace

absl::StatusOr<double> CheckFused(TimedModel* model, int runs) {
  auto lane = cuda::CudaLane::New(model->cuda_model());
  if (!lane.ok()) return lane.status();
  const Matrix input = (*lane)->input(1);
  std::mt19937_64 random(runs);
  std::vector<float> state(input.cols);
  double worst = 0;
  for (int i = 0; i < runs; ++i) {
    for (float& value : state) {
      value =
          static_cast<float>(static_cast<int32_t>(random() >> 32)) * 0x1p-30F;
    }
    // The columns of the masks: one token's is in use, and sums of several
    // could come so near the threshold that rounding decides.
    std::fill_n(state.begin(), model->cuda_model().config.max_batch_tokens,
                0.0F);
    state[0] = 1;
    Convert({state.data(), 1, state.size(), DataType::kFloat32}, input);
    auto error = CheckToken(model, lane->get(), i % model->layers());
    if (!error.ok()) return error.status();
    worst = std::max(worst, *error);
  }
  model->cuda_model().sparse_form = SparseForm::kAuto;
  return worst;
}

}  // namespace sparse_ffn::bench
