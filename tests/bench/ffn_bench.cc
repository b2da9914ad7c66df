// Times the CUDA kernels: device time of each way through the FFN, in steps,
// fused and dense, with the weights rotated over enough layers to keep L2
// cold. Prints the bytes that had to move, their rate as a share of the read
// bandwidth measured in the same run, and the ratios of the faster sparse way
// to the byte floor and of the faster dense one to it.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/npy.h"
#include "tests/bench/bench_options.h"
#include "tests/bench/device_facts.h"
#include "tests/bench/model_run.h"
#include "tests/bench/report_file.h"

namespace sparse_ffn::bench {
namespace {

absl::StatusOr<nlohmann::json> NewReport(const Options& options) {
  auto facts = GetDeviceFacts();
  if (!facts.ok()) return facts.status();
  std::printf(
      "%s, driver %s (CUDA %s), CUDA runtime %s; rated clocks: SM %d MHz, "
      "memory %d MHz\n%d layers, us a layer\n",
      facts->gpu.c_str(), facts->driver.c_str(), facts->driver_cuda.c_str(),
      facts->runtime_cuda.c_str(), facts->rated_sm_mhz, facts->rated_memory_mhz,
      options.layers);
  return nlohmann::json{{"label", options.label},
                        {"device", facts->Json()},
                        {"layers", options.layers},
                        {"replay", options.replay},
                        {"models", nlohmann::json::array()},
                        {"first_calls", nlohmann::json::array()},
                        {"cases", nlohmann::json::array()}};
}

absl::Status RunModels(const Options& options, nlohmann::json* report) {
  NpyArray replay;
  if (!options.replay.empty()) {
    auto rows = ReadNpy(options.replay);
    if (!rows.ok()) return rows.status();
    replay = *std::move(rows);
  }
  for (const std::string& preset : options.presets) {
    for (const std::string& dtype : options.dtypes) {
      ModelRun run(FindPreset(preset), dtype, options, replay, report);
      absl::Status status = run.Run();
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

absl::Status RunAll(const Options& options) {
  std::vector<PathTimes> old_times;
  if (!options.compare.empty()) {
    auto times = ReadTimes(options.compare);
    if (!times.ok()) {
      return absl::Status(
          times.status().code(),
          absl::StrCat("--compare: ", times.status().message()));
    }
    old_times = *std::move(times);
  }
  absl::Status status;
  if (!options.json.empty()) status = CheckWritable(options.json);
  if (!status.ok()) return status;
  auto report = NewReport(options);
  if (!report.ok()) return report.status();
  status = RunModels(options, &*report);
  if (!status.ok()) return status;
  if (!options.json.empty()) status = WriteReport(*report, options.json);
  if (options.compare.empty()) return status;
  auto new_times = TimesOf(*report);
  if (!new_times.ok()) return new_times.status();
  std::printf("\ncompared with %s\n%s", options.compare.c_str(),
              CompareTimes(old_times, *new_times).c_str());
  return status;
}

}  // namespace
}  // namespace sparse_ffn::bench

int main(int argc, char** argv) try {
  sparse_ffn::bench::Options options;
  CLI::App app("Times the CUDA kernels of sparse-ffn-server.");
  sparse_ffn::bench::AddFlags(&app, &options);
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = sparse_ffn::bench::RunAll(options);
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
