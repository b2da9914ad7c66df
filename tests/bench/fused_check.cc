#include "tests/bench/fused_check.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/cuda/cuda_lane.h"
#include "kernels/cuda/path_choice.h"
#include "tests/bench/bench_figures.h"

namespace sparse_ffn::bench {
namespace {

// A neuron too many or too few weighs hundreds of times as much.
constexpr double kMostError = 1e-4;

struct Answer {
  std::vector<float> output;     // [tokens, hidden]
  std::vector<uint32_t> active;  // [1 + tokens]: of the union, of each token.
};

absl::StatusOr<Answer> Run(TimedModel* model, FfnLane* lane, int layer,
                           size_t tokens, SparseForm form) {
  model->cuda_model().sparse_form = form;
  auto result = lane->Run(layer, tokens, Execution::kSparse);
  if (!result.ok()) return result.status();
  const auto* output = static_cast<const float*>(result->output.data);
  const FfnStats& stats = result->stats;
  Answer answer{{output, output + tokens * result->output.cols},
                {stats.union_active_neurons}};
  answer.active.insert(answer.active.end(), stats.active_neurons.begin(),
                       stats.active_neurons.end());
  return answer;
}

// The relative error of a batch.
absl::StatusOr<double> CheckBatch(TimedModel* model, FfnLane* lane, int layer,
                                  size_t tokens) {
  auto expected = Run(model, lane, layer, tokens, SparseForm::kSteps);
  if (!expected.ok()) return expected.status();
  auto fused = Run(model, lane, layer, tokens, SparseForm::kFused);
  if (!fused.ok()) return fused.status();
  const double error = RelativeError(fused->output, expected->output);
  if (fused->active == expected->active && error <= kMostError) return error;
  return absl::InternalError(
      absl::StrCat("layer ", layer, ", ", tokens,
                   " tokens: active neurons of the union and of each token: ",
                   absl::StrJoin(fused->active, " "), " fused, ",
                   absl::StrJoin(expected->active, " "),
                   " in steps; relative error ", error));
}

}  // namespace

absl::StatusOr<double> CheckFused(TimedModel* model, int runs) {
  auto lane = cuda::CudaLane::New(model->cuda_model());
  if (!lane.ok()) return lane.status();
  const size_t columns = model->cuda_model().config.max_batch_tokens;
  const size_t most_tokens = std::min(columns, cuda::kMaxOneKernelTokens);
  const Matrix input = (*lane)->input(most_tokens);
  std::mt19937_64 random(runs);
  std::vector<float> state(input.cols);
  double worst = 0;
  for (int i = 0; i < runs; ++i) {
    const size_t tokens = 1 + i % most_tokens;
    for (size_t token = 0; token < tokens; ++token) {
      for (float& value : state) {
        value =
            static_cast<float>(static_cast<int32_t>(random() >> 32)) * 0x1p-30F;
      }
      // The columns of the masks: a token's own is in use, and sums of several
      // could come so near the threshold that rounding decides.
      std::fill_n(state.begin(), columns, 0.0F);
      state[token] = 1;
      Convert({state.data(), 1, state.size(), DataType::kFloat32},
              {input.row(token), 1, input.cols, input.dtype});
    }
    // Layers in turn for each number of tokens.
    const int layer = i / static_cast<int>(most_tokens) % model->layers();
    auto error = CheckBatch(model, lane->get(), layer, tokens);
    if (!error.ok()) return error.status();
    worst = std::max(worst, *error);
  }
  model->cuda_model().sparse_form = SparseForm::kAuto;
  return worst;
}

}  // namespace sparse_ffn::bench
