// The cases of one model, timed one after the other.
#ifndef SPARSE_FFN_TESTS_BENCH_MODEL_RUN_H_
#define SPARSE_FFN_TESTS_BENCH_MODEL_RUN_H_

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "client/npy.h"
#include "tests/bench/bench_options.h"
#include "tests/bench/case_report.h"
#include "tests/bench/timed_model.h"

namespace sparse_ffn::bench {

// Prints what it measures and adds it to a report. Its arguments must outlive
// it.
class ModelRun {
 public:
  // `replay`: the rows of options.replay, unused where that is empty. `report`
  // has the arrays "models", "first_calls" and "cases".
  ModelRun(const Preset& preset, const std::string& dtype,
           const Options& options, const NpyArray& replay,
           nlohmann::json* report)
      : preset_(preset),
        dtype_(dtype),
        options_(options),
        replay_(replay),
        report_(*report) {}

  // Stops at the first error and names the case that has it.
  absl::Status Run();

 private:
  absl::Status Prepare(const Case& one, TimedCase* timed);
  absl::Status RunCase(const Case& one);
  // Of a case whose device times are known, those of whole calls.
  absl::Status TimeCalls(int tokens, CaseTimes* times);
  // After the case's own report.
  absl::Status RunAuto(const TimedCase& timed);
  absl::Status RunFirstCalls(const Case& one);
  absl::Status MeasureDevice();
  absl::Status MeasureCosts();
  absl::Status Verify();

  const Preset& preset_;
  const std::string& dtype_;
  const Options& options_;
  const NpyArray& replay_;
  nlohmann::json& report_;
  std::unique_ptr<TimedModel> model_;
  double read_bandwidth_ = 0;  // Bytes a second.
};

}  // namespace sparse_ffn::bench

#endif  // SPARSE_FFN_TESTS_BENCH_MODEL_RUN_H_
