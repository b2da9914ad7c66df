#include "tests/bench/lane_times.h"

#include <cstddef>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/cuda/cuda_lane.h"
#include "kernels/cuda/cuda_measure.h"
#include "tests/bench/bench_figures.h"
#include "tests/bench/graph_timer.h"

namespace sparse_ffn::bench {
namespace {

struct LanePath {
  const char* name;
  SparseForm form;
  Execution execution;
};
constexpr LanePath kLanePaths[] = {
    {"fused", SparseForm::kFused, Execution::kSparse},
    {"steps", SparseForm::kSteps, Execution::kSparse},
    {"dense", SparseForm::kSteps, Execution::kDense}};

// A lane and its caller's memory.
class Caller {
 public:
  // Of a new lane, with the prepared hidden states.
  static absl::StatusOr<Caller> New(TimedModel* model, int tokens) {
    auto lane = cuda::CudaLane::New(model->cuda_model());
    if (!lane.ok()) return lane.status();
    const Matrix input = (*lane)->input(tokens);
    Caller caller;
    caller.lane_ = *std::move(lane);
    caller.hidden_states_.resize(input.bytes());
    caller.output_.resize(input.rows * input.cols);
    Matrix states = input;
    states.data = caller.hidden_states_.data();
    absl::Status status = model->ReadHiddenStates(states);
    if (!status.ok()) return status;
    return caller;
  }

  // Microseconds of one call. As in a server the processor has just written the
  // hidden states, and reads the output.
  absl::StatusOr<double> Call(int layer, int tokens, Execution execution,
                              FfnPath* path = nullptr) {
    const Matrix input = lane_->input(tokens);
    std::memcpy(input.data, hidden_states_.data(), hidden_states_.size());
    cuda::Settle();
    auto result = lane_->Run(layer, tokens, execution);
    if (!result.ok()) return result.status();
    std::memcpy(output_.data(), result->output.data, result->output.bytes());
    if (path != nullptr) *path = result->stats.path;
    return static_cast<double>(result->stats.compute_ns) / 1e3;
  }

 private:
  Caller() = default;

  std::unique_ptr<FfnLane> lane_;
  std::vector<std::byte> hidden_states_;
  std::vector<float> output_;
};

// Of the layers in turn.
absl::StatusOr<double> MedianCall(const TimedModel& model, Caller* caller,
                                  int tokens, Execution execution) {
  std::vector<double> times;
  for (int i = 0; i < kReplays * model.layers(); ++i) {
    auto time = caller->Call(i % model.layers(), tokens, execution);
    if (!time.ok()) return time.status();
    times.push_back(*time);
  }
  return Median(times);
}

absl::StatusOr<double> TimeHostToHost(TimedModel* model, int tokens) {
  auto caller = Caller::New(model, tokens);
  if (!caller.ok()) return caller.status();
  return MedianCall(*model, &*caller, tokens, Execution::kSparse);
}

}  // namespace

absl::StatusOr<double> HostToHost(TimedModel* model, int tokens,
                                  uint32_t launch_ahead_us) {
  uint32_t& ahead_us = model->cuda_model().config.launch_ahead_us;
  const uint32_t before = std::exchange(ahead_us, launch_ahead_us);
  auto time = TimeHostToHost(model, tokens);
  ahead_us = before;
  return time;
}

absl::StatusOr<std::vector<PathCost>> MeasureForAuto(TimedModel* model) {
  constexpr double kSeconds = 2;  // The server's default.
  auto costs = cuda::MeasureCudaPaths(model->cuda_model(), kSeconds, [] {});
  if (!costs.ok()) return costs.status();
  if (costs->empty()) {
    return absl::FailedPreconditionError(
        "auto: the layers reach too few neurons to measure the paths");
  }
  auto made = cuda::PathCosts::Make(*costs);
  if (!made.ok()) return made.status();
  model->cuda_model().path_costs = *std::move(made);
  return costs;
}

absl::StatusOr<ExecutionTimes> TimeExecutions(TimedModel* model, int tokens) {
  auto caller = Caller::New(model, tokens);
  if (!caller.ok()) return caller.status();
  ExecutionTimes times = {};
  for (auto [execution, time] :
       {std::pair(Execution::kSparse, &times.sparse),
        std::pair(Execution::kDense, &times.dense),
        std::pair(Execution::kAuto, &times.automatic)}) {
    auto median = MedianCall(*model, &*caller, tokens, execution);
    if (!median.ok()) return median.status();
    *time = *median;
  }
  auto last = caller->Call(0, tokens, Execution::kAuto, &times.chosen);
  if (!last.ok()) return last.status();
  return times;
}

absl::StatusOr<std::vector<FirstCall>> TimeFirstCalls(TimedModel* model,
                                                      int tokens,
                                                      const Options& options) {
  std::vector<FirstCall> calls;
  for (const LanePath& path : kLanePaths) {
    if (!options.HasPath(path.name)) continue;
    model->cuda_model().sparse_form = path.form;
    if (path.form == SparseForm::kFused &&
        !cuda::CudaLane::MayFuse(model->cuda_model(), tokens, false)) {
      continue;
    }
    auto caller = Caller::New(model, tokens);
    if (!caller.ok()) return caller.status();
    auto first = caller->Call(0, tokens, path.execution);
    if (!first.ok()) return first.status();
    auto median = MedianCall(*model, &*caller, tokens, path.execution);
    if (!median.ok()) return median.status();
    calls.push_back({path.name, *first, *median});
  }
  model->cuda_model().sparse_form = SparseForm::kAuto;
  return calls;
}

}  // namespace sparse_ffn::bench
