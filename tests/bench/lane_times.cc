#include "tests/bench/lane_times.h"

#include <memory>
#include <utility>

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

// A new lane with the prepared hidden states.
absl::StatusOr<std::unique_ptr<FfnLane>> PreparedLane(TimedModel* model,
                                                      int tokens) {
  auto lane = cuda::CudaLane::New(model->cuda_model());
  if (!lane.ok()) return lane.status();
  absl::Status status = model->ReadHiddenStates((*lane)->input(tokens));
  if (!status.ok()) return status;
  return lane;
}

absl::StatusOr<double> MedianCall(const TimedModel& model, FfnLane* lane,
                                  int tokens, Execution execution) {
  std::vector<double> times;
  for (int i = 0; i < kReplays * model.layers(); ++i) {
    auto result =
        cuda::RunAsServed(lane, i % model.layers(), tokens, execution);
    if (!result.ok()) return result.status();
    times.push_back(static_cast<double>(result->stats.compute_ns) / 1e3);
  }
  return Median(times);
}

absl::StatusOr<double> TimeHostToHost(TimedModel* model, int tokens) {
  auto lane = PreparedLane(model, tokens);
  if (!lane.ok()) return lane.status();
  return MedianCall(*model, lane->get(), tokens, Execution::kSparse);
}

}  // namespace

absl::StatusOr<double> HostToHost(TimedModel* model, int tokens,
                                  uint32_t launch_ahead_us,
                                  bool deterministic) {
  cuda::CudaModel& m = model->cuda_model();
  const uint32_t ahead_us =
      std::exchange(m.config.launch_ahead_us, launch_ahead_us);
  const SparseForm form = m.sparse_form;
  const cuda::PathCosts costs = m.path_costs;
  if (deterministic) {  // Such a backend always fuses, and measures nothing.
    m.config.deterministic = true;
    m.sparse_form = SparseForm::kFused;
    m.path_costs = cuda::PathCosts();
  }
  auto time = TimeHostToHost(model, tokens);
  m.config.launch_ahead_us = ahead_us;
  m.config.deterministic = false;
  m.sparse_form = form;
  m.path_costs = costs;
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
  auto lane = PreparedLane(model, tokens);
  if (!lane.ok()) return lane.status();
  ExecutionTimes times = {};
  for (auto [execution, time] :
       {std::pair(Execution::kSparse, &times.sparse),
        std::pair(Execution::kDense, &times.dense),
        std::pair(Execution::kAuto, &times.automatic)}) {
    auto median = MedianCall(*model, lane->get(), tokens, execution);
    if (!median.ok()) return median.status();
    *time = *median;
  }
  auto last = (*lane)->Run(0, tokens, Execution::kAuto);
  if (!last.ok()) return last.status();
  times.chosen = last->stats.path;
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
        !cuda::CudaLane::MayFuse(model->cuda_model(), tokens)) {
      continue;
    }
    auto lane = PreparedLane(model, tokens);
    if (!lane.ok()) return lane.status();
    auto first = cuda::RunAsServed(lane->get(), 0, tokens, path.execution);
    if (!first.ok()) return first.status();
    const double first_us = static_cast<double>(first->stats.compute_ns) / 1e3;
    auto median = MedianCall(*model, lane->get(), tokens, path.execution);
    if (!median.ok()) return median.status();
    calls.push_back({path.name, first_us, *median});
  }
  model->cuda_model().sparse_form = SparseForm::kAuto;
  return calls;
}

}  // namespace sparse_ffn::bench
