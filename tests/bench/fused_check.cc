#include "tests/bench/fused_check.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
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

// Random states for the mask columns below `columns`. Those are a token's own:
// sums of several could come so near the threshold that rounding decides.
void FillStates(std::mt19937_64& random, size_t columns, Matrix states) {
  std::vector<float> state(states.cols);
  for (size_t token = 0; token < states.rows; ++token) {
    for (float& value : state) {
      value =
          static_cast<float>(static_cast<int32_t>(random() >> 32)) * 0x1p-30F;
    }
    std::fill_n(state.begin(), columns, 0.0F);
    state[token] = 1;
    Convert(ConstMatrix{state.data(), 1, state.size(), DataType::kFloat32},
            Matrix{states.row(token), 1, states.cols, states.dtype});
  }
}

// Launches in a row, none of which waits for the one before, with their
// page-locked memory. Launch i has tokens[i % tokens.size()].
class Row {
 public:
  static constexpr int kLaunches = 12;

  Row(TimedModel* model, std::vector<size_t> tokens)
      : model_(*model),
        config_(model_.cuda_model().config),
        tokens_(std::move(tokens)) {}

  absl::Status Allocate() {
    for (auto [memory, bytes] :
         {std::pair(&inputs_, Values() * DataTypeBytes(config_.weights_dtype)),
          std::pair(&outputs_, Values() * sizeof(float)),
          std::pair(&counters_, kLaunches * kCounters * sizeof(int))}) {
      auto made = cuda::NewPinnedMemory(bytes);
      if (!made.ok()) return made.status();
      *memory = *std::move(made);
    }
    return absl::OkStatus();
  }
  Matrix input(int launch) const {
    const Matrix most = {inputs_.get(), kMostTokens, config_.hidden_size,
                         config_.weights_dtype};
    return {inputs_.get() + launch * most.bytes(), tokens(launch), most.cols,
            most.dtype};
  }
  absl::Status Run() {
    std::memset(outputs_.get(), 0xff, Values() * sizeof(float));
    std::memset(counters_.get(), 0xff, kLaunches * kCounters * sizeof(int));
    absl::Status status;
    for (int i = 0; i < kLaunches; ++i) {
      status.Update(model_.steps().Fused(
          model_.cuda_model().layers.at(layer(i)), static_cast<int>(tokens(i)),
          {input(i).data, {output(i), counters(i), nullptr}}));
    }
    status.Update(cuda::ToStatus(cudaDeviceSynchronize(), "launches in a row"));
    return status;
  }
  // Whether a lane gives the same for a launch alone.
  absl::Status CheckAlone(FfnLane* lane, int launch) const {
    const Matrix states = lane->input(tokens(launch));
    std::memcpy(states.data, input(launch).data, states.bytes());
    auto result = lane->Run(layer(launch), tokens(launch), Execution::kSparse);
    if (!result.ok()) return result.status();
    const FfnStats& stats = result->stats;
    bool equal = std::memcmp(result->output.data, output(launch),
                             result->output.bytes()) == 0 &&
                 stats.union_active_neurons ==
                     static_cast<uint32_t>(counters(launch)[0]);
    for (size_t t = 0; t < tokens(launch); ++t) {
      equal = equal && stats.active_neurons[t] ==
                           static_cast<uint32_t>(counters(launch)[1 + t]);
    }
    if (equal) return absl::OkStatus();
    return absl::InternalError(
        absl::StrCat("launch ", launch, " of a row, layer ", layer(launch),
                     ", ", tokens(launch), " tokens: not what it gives alone"));
  }

 private:
  static constexpr size_t kMostTokens = cuda::kMaxOneKernelTokens;
  static constexpr size_t kCounters = 4;  // At least; 16-byte aligned.

  // Of all launches' hidden states, or of their outputs.
  size_t Values() const {
    return kLaunches * kMostTokens * config_.hidden_size;
  }
  size_t tokens(int launch) const { return tokens_[launch % tokens_.size()]; }
  int layer(int launch) const { return launch % model_.layers(); }
  float* output(int launch) const {
    return reinterpret_cast<float*>(outputs_.get()) +
           launch * kMostTokens * config_.hidden_size;
  }
  int* counters(int launch) const {
    return reinterpret_cast<int*>(counters_.get()) + launch * kCounters;
  }

  TimedModel& model_;
  const FfnConfig& config_;
  const std::vector<size_t> tokens_;
  cuda::PinnedMemory inputs_;
  cuda::PinnedMemory outputs_;
  cuda::PinnedMemory counters_;
};

// Fresh batches through a row, over and over.
absl::Status CheckRow(TimedModel* model, FfnLane* lane, int runs,
                      const std::vector<size_t>& tokens) {
  const size_t columns = model->cuda_model().config.max_batch_tokens;
  std::mt19937_64 random(runs);
  Row row(model, tokens);
  absl::Status status = row.Allocate();
  for (int i = 0; i < runs && status.ok(); i += Row::kLaunches) {
    for (int launch = 0; launch < Row::kLaunches; ++launch) {
      FillStates(random, columns, row.input(launch));
    }
    status = row.Run();
    for (int launch = 0; launch < Row::kLaunches && status.ok(); ++launch) {
      status = row.CheckAlone(lane, launch);
    }
  }
  return status;
}

}  // namespace

absl::StatusOr<double> CheckFused(TimedModel* model, int runs) {
  auto lane = cuda::CudaLane::New(model->cuda_model());
  if (!lane.ok()) return lane.status();
  const size_t columns = model->cuda_model().config.max_batch_tokens;
  const size_t most_tokens = std::min(columns, cuda::kMaxOneKernelTokens);
  std::mt19937_64 random(runs);
  double worst = 0;
  for (int i = 0; i < runs; ++i) {
    const size_t tokens = 1 + i % most_tokens;
    FillStates(random, columns, (*lane)->input(tokens));
    // Layers in turn for each number of tokens.
    const int layer = i / static_cast<int>(most_tokens) % model->layers();
    auto error = CheckBatch(model, lane->get(), layer, tokens);
    if (!error.ok()) return error.status();
    worst = std::max(worst, *error);
  }
  model->cuda_model().sparse_form = SparseForm::kAuto;
  return worst;
}

absl::StatusOr<bool> CheckFusedInARow(TimedModel* model, int runs) {
  const auto takes = [&](int tokens) {
    return static_cast<size_t>(tokens) <=
               model->cuda_model().config.max_batch_tokens &&
           cuda::CudaSteps::UsesFusedBulk(model->cuda_model(), tokens);
  };
  if (!takes(1)) return false;
  auto lane = cuda::CudaLane::New(model->cuda_model());
  if (!lane.ok()) return lane.status();
  model->cuda_model().sparse_form = SparseForm::kFused;
  absl::Status status = CheckRow(model, lane->get(), runs, {1});
  if (takes(2)) {
    status.Update(CheckRow(model, lane->get(), runs, {2}));
    status.Update(CheckRow(model, lane->get(), runs, {1, 2, 2, 1, 1}));
  }
  model->cuda_model().sparse_form = SparseForm::kAuto;
  if (!status.ok()) return status;
  return true;
}

}  // namespace sparse_ffn::bench
