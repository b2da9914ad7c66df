// Times the CPU backend: each step and the whole FFN, dense and sparse in turn,
// with the weights rotated over enough layers to keep the caches cold. Prints
// the bytes that had to move, their rate, its share of the read bandwidth
// measured in the same run, and the ratio to the dense path.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "client/npy.h"
#include "kernels/ffn_backend.h"
#include "tests/bench/bench_figures.h"
#include "tests/bench/bench_masks.h"
#include "tests/bench/cpu_bench_model.h"
#include "tests/bench/read_bandwidth.h"

namespace sparse_ffn::bench {
namespace {

struct Options {
  size_t hidden_size = 4096;
  size_t intermediate_size = 11008;
  int layers = 4;
  std::vector<size_t> tokens = {1, 8};
  std::vector<double> densities = {0.107, 0.33};
  std::string replay;
  std::string dtype = "bfloat16";
  int threads = 0;
  int repeats = 24;
  std::string json;
};

struct Path {
  const char* name;
  Execution execution;
};
constexpr std::array<Path, 2> kPaths = {
    {{"dense", Execution::kDense}, {"sparse", Execution::kSparse}}};

// Of the runs of one path, in milliseconds.
struct Times {
  std::vector<double> gate, up, down, whole;
  FfnPath last_path = FfnPath::kDense;
};
using AllTimes = std::array<Times, kPaths.size()>;

double Milliseconds(uint64_t nanoseconds) {
  return static_cast<double>(nanoseconds) / 1e6;
}

double Best(const std::vector<double>& values) {
  return *std::min_element(values.begin(), values.end());
}

DataType DtypeOf(const Options& options) {
  if (options.dtype == "float32") return DataType::kFloat32;
  if (options.dtype == "float16") return DataType::kFloat16;
  return DataType::kBFloat16;
}

// The paths take turns, so that whatever disturbs the machine disturbs all.
AllTimes Measure(CpuBenchModel& model, int repeats) {
  AllTimes all;
  int layer = 0;
  for (int i = -1; i < repeats; ++i) {
    for (size_t p = 0; p < kPaths.size(); ++p) {
      const FfnStats stats = model.Run(layer, kPaths[p].execution);
      layer = (layer + 1) % model.layers();
      if (i < 0) continue;  // Warms up threads and pages.
      all[p].gate.push_back(Milliseconds(stats.gate_ns));
      all[p].up.push_back(Milliseconds(stats.up_ns));
      all[p].down.push_back(Milliseconds(stats.down_ns));
      all[p].whole.push_back(Milliseconds(stats.compute_ns));
      all[p].last_path = stats.path;
    }
  }
  return all;
}

// What one line shows. `bytes` had to move: the gate, and of the other two
// matrices the rows that the path needs.
nlohmann::json Row(const char* path, const Times& times, double bytes,
                   double bandwidth, double dense_ms) {
  const double median = Median(times.whole);
  const double best = Best(times.whole);
  return {{"path", path},
          {"ran", FfnPathName(times.last_path)},
          {"gate_ms", Median(times.gate)},
          {"up_ms", Median(times.up)},
          {"down_ms", Median(times.down)},
          {"whole_ms", median},
          {"best_ms", best},
          {"bytes", bytes},
          {"bandwidth_share", bytes / (median / 1e3) / bandwidth},
          {"best_bandwidth_share", bytes / (best / 1e3) / bandwidth},
          {"dense_ratio", dense_ms / median}};
}

void Print(const nlohmann::json& row) {
  std::printf(
      "  %-6s gate %8.3f  up %8.3f  down %8.3f  whole %8.3f ms (best %8.3f)  "
      "%6.1f MB = %3.0f %% (%3.0f %%) of plain reads  dense/this %5.2f  %s\n",
      row["path"].get<std::string>().c_str(), row["gate_ms"].get<double>(),
      row["up_ms"].get<double>(), row["down_ms"].get<double>(),
      row["whole_ms"].get<double>(), row["best_ms"].get<double>(),
      row["bytes"].get<double>() / 1e6,
      100 * row["bandwidth_share"].get<double>(),
      100 * row["best_bandwidth_share"].get<double>(),
      row["dense_ratio"].get<double>(), row["ran"].get<std::string>().c_str());
}

nlohmann::json RunCase(const Options& options, size_t tokens,
                       const Masks& masks, double bandwidth) {
  const DataType dtype = DtypeOf(options);
  CpuBenchModel model(
      {options.hidden_size, options.intermediate_size, tokens, dtype},
      options.threads, masks);
  const AllTimes all = Measure(model, options.repeats);
  const double needed = UnionDensity(masks, options.intermediate_size);
  const double matrix_bytes = static_cast<double>(
      options.hidden_size * options.intermediate_size * DataTypeBytes(dtype));
  nlohmann::json rows;
  for (size_t p = 0; p < kPaths.size(); ++p) {
    const bool dense = all[p].last_path == FfnPath::kDense;
    rows.push_back(Row(kPaths[p].name, all[p],
                       matrix_bytes * (dense ? 3 : 1 + 2 * needed), bandwidth,
                       Median(all[0].whole)));
    Print(rows.back());
  }
  std::fflush(stdout);
  return rows;
}

nlohmann::json RunAll(const Options& options, double bandwidth) {
  nlohmann::json cases;
  const auto run = [&](const std::string& input, size_t tokens,
                       const Masks& masks) {
    const double needed = UnionDensity(masks, options.intermediate_size);
    std::printf("%zu tokens, %s, union %.1f %%\n", tokens, input.c_str(),
                100 * needed);
    cases.push_back({{"tokens", tokens},
                     {"input", input},
                     {"union_density", needed},
                     {"rows", RunCase(options, tokens, masks, bandwidth)}});
  };
  for (size_t tokens : options.tokens) {
    const int count = static_cast<int>(tokens);
    if (!options.replay.empty()) {
      const NpyArray rows = ReadNpy(options.replay).value();
      run("real rows", tokens,
          ReplayedMasks(rows, options.layers, count, options.intermediate_size)
              .value());
      continue;
    }
    for (double density : options.densities) {
      run(std::to_string(100 * density) + " % active", tokens,
          RandomMasks(options.layers, count, options.intermediate_size,
                      1 - density));
    }
  }
  return cases;
}

void Main(Options options) {
  for (size_t tokens : options.tokens) {
    if (tokens > options.hidden_size) {
      throw std::invalid_argument(
          "--tokens: expected at most the hidden size, " +
          std::to_string(options.hidden_size) + ", got " +
          std::to_string(tokens));
    }
  }
  if (options.threads == 0) {
    options.threads = static_cast<int>(std::thread::hardware_concurrency());
  }
  const double bandwidth = ReadBandwidth(options.threads);
  std::printf("%d threads, plain reads %.1f GB/s, %s [%zu, %zu], %d layers\n",
              options.threads, bandwidth / 1e9, options.dtype.c_str(),
              options.intermediate_size, options.hidden_size, options.layers);
  const nlohmann::json report = {
      {"threads", options.threads},
      {"read_bytes_per_second", bandwidth},
      {"dtype", options.dtype},
      {"hidden_size", options.hidden_size},
      {"intermediate_size", options.intermediate_size},
      {"layers", options.layers},
      {"cases", RunAll(options, bandwidth)}};
  if (!options.json.empty()) std::ofstream(options.json) << report.dump(1);
}

}  // namespace
}  // namespace sparse_ffn::bench

int main(int argc, char** argv) try {
  CLI::App app("Times the CPU backend.");
  sparse_ffn::bench::Options options;
  app.add_option("--hidden", options.hidden_size)->check(CLI::Range(1, 65536));
  app.add_option("--intermediate", options.intermediate_size)
      ->check(CLI::Range(1, 262144));
  app.add_option("--layers", options.layers, "Rotated, to keep caches cold")
      ->check(CLI::Range(1, 64));
  app.add_option("--tokens", options.tokens,
                 "Batch sizes, at most the hidden size")
      ->delimiter(',')
      ->check(CLI::Range(1, 8192));
  app.add_option("--densities", options.densities, "Of each token, random")
      ->delimiter(',');
  app.add_option("--replay", options.replay,
                 ".npy file of activations to take the active neurons from");
  app.add_option("--dtype", options.dtype)
      ->check(CLI::IsMember({"bfloat16", "float16", "float32"}));
  app.add_option("--threads", options.threads, "0: one a processor");
  app.add_option("--repeats", options.repeats)->check(CLI::Range(1, 100000));
  app.add_option("--json", options.json, "File for the figures");
  CLI11_PARSE(app, argc, argv);
  sparse_ffn::bench::Main(options);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "cpu_bench: %s\n", error.what());
  return 1;
}
