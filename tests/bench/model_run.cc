#include "tests/bench/model_run.h"

#include <algorithm>
#include <cstdio>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/bench/bench_figures.h"
#include "tests/bench/bench_masks.h"
#include "tests/bench/case_timer.h"
#include "tests/bench/fused_check.h"
#include "tests/bench/lane_times.h"

namespace sparse_ffn::bench {
namespace {

absl::Status At(const std::string& place, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(place, ": ", status.message()));
}

}  // namespace

absl::Status ModelRun::Run() {
  const std::string name = absl::StrCat(preset_.name, "/", dtype_);
  auto model = TimedModel::New(preset_, *ParseDataType(dtype_), options_);
  if (!model.ok()) return At(name, model.status());
  model_ = *std::move(model);
  const std::vector<Case> cases = Cases(options_);
  absl::Status status = RunFirstCalls(cases[0]);
  if (status.ok()) status = MeasureDevice();
  if (!status.ok()) return At(name, status);
  status = MeasureCosts();
  if (!status.ok()) return At(name, status);
  std::printf("%s", TableHeader().c_str());
  for (const Case& one : cases) {
    status = RunCase(one);
    if (!status.ok()) return status;
  }
  status = Verify();
  return status.ok() ? status : At(name, status);
}

absl::Status ModelRun::Prepare(const Case& one, TimedCase* timed) {
  const size_t n = preset_.intermediate_size;
  absl::StatusOr<Masks> masks =
      one.sparsity.has_value()
          ? RandomMasks(options_.layers, one.tokens, n, *one.sparsity)
          : ReplayedMasks(replay_, options_.layers, one.tokens, n);
  if (!masks.ok()) return masks.status();
  timed->union_density = UnionDensity(*masks, n);
  return model_->Prepare(one.tokens, *masks);
}

absl::Status ModelRun::RunCase(const Case& one) {
  TimedCase timed{preset_.name,    dtype_, one.tokens, one.input(),
                  options_.layers, 0,      {},         {}};
  absl::Status status = Prepare(one, &timed);
  if (!status.ok()) return At(timed.Key(), status);
  auto times = TimeCase(model_.get(), one.tokens, options_);
  if (!times.ok()) return At(timed.Key(), times.status());
  timed.times = *times;
  status = TimeCalls(one.tokens, &timed.times);
  if (!status.ok()) return At(timed.Key(), status);
  timed.figures =
      Derive(timed.times, timed.union_density,
             static_cast<double>(model_->matrix_bytes()), read_bandwidth_);
  std::printf("%s", TableRow(timed).c_str());
  report_["cases"].push_back(CaseJson(timed));
  status = options_.HasPath("auto") ? RunAuto(timed) : absl::OkStatus();
  std::fflush(stdout);
  return status.ok() ? status : At(timed.Key(), status);
}

absl::Status ModelRun::TimeCalls(int tokens, CaseTimes* times) {
  const uint32_t ahead_us = model_->cuda_model().config.launch_ahead_us;
  for (auto [launch_ahead_us, deterministic, time] :
       {std::tuple(ahead_us, false, &times->host_to_host),
        std::tuple(0U, false, &times->unforeseen),
        std::tuple(ahead_us, true, &times->deterministic_host_to_host)}) {
    // Of sizes that such a backend computes in order.
    if (deterministic && times->deterministic == 0) continue;
    auto median =
        HostToHost(model_.get(), tokens, launch_ahead_us, deterministic);
    if (!median.ok()) return median.status();
    *time = *median;
  }
  return absl::OkStatus();
}

absl::Status ModelRun::MeasureCosts() {
  if (!options_.HasPath("auto")) return absl::OkStatus();
  auto costs = MeasureForAuto(model_.get());
  if (!costs.ok()) return costs.status();
  std::printf("EXECUTION_AUTO goes by: path, tokens, union, us a call\n");
  for (const PathCost& cost : *costs) {
    std::printf("  %-6s %4zu %6.2f%% %8.1f\n", FfnPathName(cost.path),
                cost.tokens, 100 * cost.union_density, cost.microseconds);
  }
  return absl::OkStatus();
}

absl::Status ModelRun::RunAuto(const TimedCase& timed) {
  auto times = TimeExecutions(model_.get(), timed.tokens);
  if (!times.ok()) return times.status();
  const double of_better =
      std::min(times->sparse, times->dense) / times->automatic;
  std::printf(
      "  calls: sparse %.1f, dense %.1f, auto %.1f us (%s): %.2f of the better "
      "one's speed\n",
      times->sparse, times->dense, times->automatic, FfnPathName(times->chosen),
      of_better);
  nlohmann::json& entry = report_["cases"].back();
  entry["calls"] = {{"sparse_us", times->sparse},
                    {"dense_us", times->dense},
                    {"auto_us", times->automatic},
                    {"auto_path", FfnPathName(times->chosen)}};
  return absl::OkStatus();
}

absl::Status ModelRun::RunFirstCalls(const Case& one) {
  TimedCase timed;
  absl::Status status = Prepare(one, &timed);
  if (!status.ok()) return status;
  auto calls = TimeFirstCalls(model_.get(), one.tokens, options_);
  if (!calls.ok()) return calls.status();
  std::printf("\n%s %s, first call (median), us, host to host, tokens %d:",
              preset_.name.c_str(), dtype_.c_str(), one.tokens);
  for (const FirstCall& call : *calls) {
    std::printf("  %s %.1f (%.1f)", call.path.c_str(), call.first_us,
                call.median_us);
    report_["first_calls"].push_back({{"preset", preset_.name},
                                      {"dtype", dtype_},
                                      {"tokens", one.tokens},
                                      {"path", call.path},
                                      {"first_us", call.first_us},
                                      {"median_us", call.median_us}});
  }
  std::printf("\n");
  return absl::OkStatus();
}

absl::Status ModelRun::MeasureDevice() {
  auto bandwidth = model_->ReadBandwidth();
  if (!bandwidth.ok()) return bandwidth.status();
  read_bandwidth_ = *bandwidth;
  auto clock = model_->MeasureSmClock(read_bandwidth_);
  if (!clock.ok()) return clock.status();
  std::printf("plain read %.2f TB/s, SM clock %.0f MHz measured under it\n",
              read_bandwidth_ / 1e12, *clock);
  report_["models"].push_back({{"preset", preset_.name},
                               {"dtype", dtype_},
                               {"read_bytes_per_second", read_bandwidth_},
                               {"measured_sm_mhz", *clock}});
  return absl::OkStatus();
}

absl::Status ModelRun::Verify() {
  if (options_.verify == 0) return absl::OkStatus();
  auto worst = CheckFused(model_.get(), options_.verify);
  if (!worst.ok()) return worst.status();
  bool in_a_row = false;
  for (bool deterministic : {true, false}) {
    model_->cuda_model().config.deterministic = deterministic;
    auto checked = CheckFusedInARow(model_.get(), options_.verify);
    if (!checked.ok()) return checked.status();
    in_a_row = *checked;
  }
  std::printf("%d fresh batches: fused as in steps, relative error %.1e%s\n",
              options_.verify, *worst,
              in_a_row ? "; in a row as alone, to the bit" : "");
  return absl::OkStatus();
}

}  // namespace sparse_ffn::bench
