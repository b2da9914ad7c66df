// Times the CUDA kernels: device time of each step and of the whole FFN, sparse
// and dense, with the weights rotated over enough layers to keep L2 cold.
// Prints the bytes that had to move, their rate as a share of the read
// bandwidth measured in the same run, and the ratios to the byte floor and to
// dense: those of the fused form where there is one.
#include <cuda_runtime_api.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/npy.h"
#include "kernels/cuda/cuda_lane.h"
#include "kernels/cuda/cuda_model.h"
#include "kernels/cuda/cuda_steps.h"
#include "tests/bench/bench_masks.h"
#include "tests/bench/bench_model.h"
#include "tests/bench/graph_timer.h"

namespace sparse_ffn::bench {
namespace {

using cuda::CudaLayer;
using cuda::CudaSteps;
using cuda::ToStatus;

constexpr int kReplays = 15;

struct Preset {
  const char* name;
  size_t hidden_size;
  size_t intermediate_size;
};
constexpr Preset kPresets[] = {{"prosparse-7b", 4096, 11008},
                               {"prosparse-13b", 5120, 13824},
                               {"minicpm-s-1b", 1536, 3840}};

struct Options {
  std::vector<std::string> presets = {"prosparse-7b", "prosparse-13b"};
  std::vector<double> sparsities = {0.6698, 0.893, 0.98};
  std::vector<int> tokens = {1};
  std::string replay;
  std::string json;
  int layers = 12;
  int compare = 0;
  bool half = false;
};

// Microseconds a layer, device time.
struct Times {
  double gate, step2, step3, whole;
  double dense_up, dense_down, dense;
  double fused;  // 0 where there is none
  double host_to_host;
};

// One preset's model on the device, and the timing of its cases.
class Bench {
 public:
  static absl::StatusOr<std::unique_ptr<Bench>> New(const Preset& preset,
                                                    const Options& options);
  absl::StatusOr<Times> Time(int tokens, const Masks& masks);
  // Bytes a second that a plain kernel reads of all the weights.
  absl::StatusOr<double> ReadBandwidth();
  // Runs `runs` fresh tokens fused and in steps, over the layers as Time left
  // them; INTERNAL where they differ by more than rounding.
  absl::Status Compare(int runs);

  size_t matrix_bytes() const { return n_ * hidden_ * 2; }

 private:
  Bench(const Preset& preset, const Options& options)
      : n_(preset.intermediate_size),
        hidden_(preset.hidden_size),
        half_(options.half) {}

  absl::Status Init(const Options& options);
  absl::Status Prepare(int tokens, const Masks& masks);
  // Median over replays of `steps` queued for every layer, a layer's share.
  template <typename F>
  absl::Status TimeLayers(double* microseconds, F steps) {
    auto time = MedianMicroseconds(stream_.get(), kReplays, [&] {
      absl::Status status;
      for (const auto& [index, layer] : model_.layers) {
        status.Update(steps(layer));
      }
      return status;
    });
    if (!time.ok()) return time.status();
    *microseconds = *time / static_cast<double>(model_.layers.size());
    return absl::OkStatus();
  }
  absl::Status TimeFused(double* microseconds);
  absl::StatusOr<double> HostToHost(int tokens);

  const size_t n_;
  const size_t hidden_;
  const bool half_;
  cuda::Stream stream_;
  cuda::CudaModel model_;
  std::unique_ptr<CudaSteps> steps_;
};

absl::StatusOr<std::unique_ptr<Bench>> Bench::New(const Preset& preset,
                                                  const Options& options) {
  std::unique_ptr<Bench> bench(new Bench(preset, options));
  absl::Status status = bench->Init(options);
  if (!status.ok()) return status;
  return bench;
}

absl::Status Bench::Init(const Options& options) {
  auto stream = cuda::NewStream();
  if (!stream.ok()) return stream.status();
  stream_ = *std::move(stream);
  model_.config.hidden_size = hidden_;
  model_.config.intermediate_size = n_;
  model_.config.max_batch_tokens =
      *std::max_element(options.tokens.begin(), options.tokens.end());
  model_.config.weights_dtype =
      half_ ? DataType::kFloat16 : DataType::kBFloat16;
  model_.config.activation = Activation::kFatRelu;
  model_.config.threshold = 0.5F;
  model_.element = half_ ? cuda::Element::kFloat16 : cuda::Element::kBFloat16;
  cudaDeviceProp device;
  absl::Status status =
      ToStatus(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  if (!status.ok()) return status;
  model_.device_traits = {device.multiProcessorCount, device.major >= 9,
                          static_cast<int>(device.sharedMemPerBlockOptin)};
  for (int i = 0; i < options.layers; ++i) {
    auto memory = cuda::NewDeviceMemory(3 * matrix_bytes());
    if (!memory.ok()) return memory.status();
    // So small that the columns of the mask decide who is active.
    status.Update(ToStatus(FillRandom(memory->get(), 3 * n_ * hidden_, 1e-3F, i,
                                      half_, stream_.get()),
                           "FillRandom"));
    CudaLayer& layer = model_.layers[i];
    layer.gate_proj = memory->get();
    layer.up_proj = memory->get() + matrix_bytes();
    layer.down_proj = memory->get() + 2 * matrix_bytes();
    layer.memory = *std::move(memory);
  }
  auto steps = CudaSteps::New(model_, stream_.get());
  if (!steps.ok()) return steps.status();
  steps_ = *std::move(steps);
  return status;
}

absl::StatusOr<double> Bench::ReadBandwidth() {
  auto sink = cuda::NewDeviceMemory(sizeof(int));
  if (!sink.ok()) return sink.status();
  double microseconds = 0;
  absl::Status status = TimeLayers(&microseconds, [&](const CudaLayer& layer) {
    return ToStatus(ReadAll(layer.gate_proj, 3 * matrix_bytes(),
                            reinterpret_cast<int*>(sink->get()),
                            model_.device_traits.sm_count, stream_.get()),
                    "ReadAll");
  });
  if (!status.ok()) return status;
  return 3e6 * static_cast<double>(matrix_bytes()) / microseconds;
}

absl::Status Bench::Prepare(int tokens, const Masks& masks) {
  absl::Status status =
      ToStatus(FillHidden(steps_->hidden_states(), tokens,
                          static_cast<int>(hidden_), half_, stream_.get()),
               "FillHidden");
  auto mask = cuda::NewDeviceMemory(masks[0].size());
  if (!mask.ok()) return mask.status();
  for (const auto& [index, layer] : model_.layers) {
    status.Update(ToStatus(
        cudaMemcpyAsync(mask->get(), masks[index].data(), masks[index].size(),
                        cudaMemcpyHostToDevice, stream_.get()),
        "copying a mask"));
    status.Update(
        ToStatus(SetMask(const_cast<void*>(layer.gate_proj),
                         reinterpret_cast<const uint8_t*>(mask->get()), tokens,
                         static_cast<int>(n_), static_cast<int>(hidden_), half_,
                         stream_.get()),
                 "SetMask"));
  }
  status.Update(
      ToStatus(cudaStreamSynchronize(stream_.get()), "preparing a case"));
  return status;
}

absl::StatusOr<Times> Bench::Time(int tokens, const Masks& masks) {
  absl::Status status = Prepare(tokens, masks);
  Times times;
  double up = 0;
  double dense_up = 0;
  const auto gate = [&](const CudaLayer& layer) {
    return steps_->Gate(layer, tokens);
  };
  const auto sparse_up = [&](const CudaLayer& layer) {
    absl::Status queued = gate(layer);
    queued.Update(steps_->Select(tokens, true));
    queued.Update(steps_->SparseUp(layer, tokens));
    return queued;
  };
  const auto dense_gated = [&](const CudaLayer& layer) {
    absl::Status queued = gate(layer);
    queued.Update(steps_->Select(tokens, false));
    queued.Update(steps_->DenseUp(layer, tokens));
    return queued;
  };
  status.Update(TimeLayers(&times.gate, gate));
  status.Update(TimeLayers(&up, sparse_up));
  status.Update(TimeLayers(&times.whole, [&](const CudaLayer& layer) {
    absl::Status queued = sparse_up(layer);
    queued.Update(steps_->SparseDown(layer, tokens));
    return queued;
  }));
  status.Update(TimeLayers(&dense_up, dense_gated));
  status.Update(TimeLayers(&times.dense, [&](const CudaLayer& layer) {
    absl::Status queued = dense_gated(layer);
    queued.Update(steps_->DenseDown(layer, tokens));
    return queued;
  }));
  times.fused = 0;
  if (tokens == 1) {
    status.Update(TimeFused(&times.fused));
  } else if (steps_->FusedTakesBatch(tokens)) {
    status.Update(TimeLayers(&times.fused, [&](const CudaLayer& layer) {
      return steps_->FusedBatch(layer, tokens);
    }));
  }
  if (!status.ok()) return status;
  times.step2 = up - times.gate;
  times.step3 = times.whole - up;
  times.dense_up = dense_up - times.gate;
  times.dense_down = times.dense - dense_up;
  auto host_to_host = HostToHost(tokens);
  if (!host_to_host.ok()) return host_to_host.status();
  times.host_to_host = *host_to_host;
  return times;
}

absl::Status Bench::TimeFused(double* microseconds) {
  auto output = cuda::NewDeviceMemory(hidden_ * sizeof(float));
  if (!output.ok()) return output.status();
  auto counters = cuda::NewDeviceMemory(2 * sizeof(int));
  if (!counters.ok()) return counters.status();
  return TimeLayers(microseconds, [&](const CudaLayer& layer) {
    return steps_->Fused(layer, reinterpret_cast<float*>(output->get()),
                         reinterpret_cast<int*>(counters->get()));
  });
}

absl::Status Bench::Compare(int runs) {
  auto lane = cuda::CudaLane::New(model_);
  if (!lane.ok()) return lane.status();
  std::mt19937_64 random(runs);
  std::vector<float> state(hidden_);
  // A neuron too many or too few weighs hundreds of times as much.
  constexpr double kMostError = 1e-4;
  double worst = 0;
  for (int i = 0; i < runs; ++i) {
    for (float& value : state) {
      value =
          static_cast<float>(static_cast<int32_t>(random() >> 32)) * 0x1p-30F;
    }
    state[0] = 1;  // The column of the mask.
    Convert({state.data(), 1, hidden_, DataType::kFloat32}, (*lane)->input(1));
    std::vector<float> expected;
    uint32_t expected_active = 0;
    for (SparseForm form : {SparseForm::kSteps, SparseForm::kFused}) {
      model_.sparse_form = form;
      auto result = (*lane)->Run(i % static_cast<int>(model_.layers.size()), 1,
                                 Execution::kSparse);
      if (!result.ok()) return result.status();
      const auto* output = static_cast<const float*>(result->output.data);
      const uint32_t active = result->stats.active_neurons[0];
      if (form == SparseForm::kSteps) {
        expected.assign(output, output + hidden_);
        expected_active = active;
        continue;
      }
      double error = 0;
      double size = 0;
      for (size_t c = 0; c < hidden_; ++c) {
        error += std::pow(double{output[c]} - expected[c], 2);
        size += std::pow(expected[c], 2);
      }
      const double relative = std::sqrt(error / size);
      if (active != expected_active || !(relative <= kMostError)) {
        return absl::InternalError(absl::StrCat(
            "run ", i, ": ", active, " active neurons, ", expected_active,
            " in steps; relative error ", relative));
      }
      worst = std::max(worst, relative);
    }
  }
  model_.sparse_form = SparseForm::kAuto;
  std::printf("%d fresh tokens: fused as in steps, relative error %.1e\n", runs,
              worst);
  return absl::OkStatus();
}

absl::StatusOr<double> Bench::HostToHost(int tokens) {
  auto lane = cuda::CudaLane::New(model_);
  if (!lane.ok()) return lane.status();
  const Matrix input = (*lane)->input(tokens);
  absl::Status status =
      ToStatus(cudaMemcpy(input.data, steps_->hidden_states(), input.bytes(),
                          cudaMemcpyDeviceToHost),
               "reading the hidden states");
  std::vector<double> times;
  for (int i = 0; i < kReplays * static_cast<int>(model_.layers.size()); ++i) {
    auto result = (*lane)->Run(i % static_cast<int>(model_.layers.size()),
                               tokens, Execution::kSparse);
    if (!result.ok()) return result.status();
    times.push_back(static_cast<double>(result->stats.compute_ns) / 1e3);
  }
  if (!status.ok()) return status;
  std::nth_element(times.begin(),
                   times.begin() + static_cast<ptrdiff_t>(times.size() / 2),
                   times.end());
  return times[times.size() / 2];
}

nlohmann::json Report(const Preset& preset, const std::string& input,
                      int tokens, double density, double matrix_bytes,
                      double bandwidth, const Times& t) {
  const double floor_bytes = (1 + 2 * density) * matrix_bytes;
  const double floor = 1e6 * floor_bytes / bandwidth;
  const double best = t.fused > 0 ? t.fused : t.whole;
  std::printf(
      "%-14s %-9s %4d %6.2f%% %7.1f %7.1f %7.1f %7.1f %7.1f %7.1f %7.1f %6.2f "
      "%5.1f%% %6.2f %6.2f %7.1f\n",
      preset.name, input.c_str(), tokens, 100 * density, t.gate, t.step2,
      t.step3, t.whole, t.fused, t.dense, floor, floor_bytes / best / 1e6,
      100 * floor / best, best / floor, t.dense / best, t.host_to_host);
  std::fflush(stdout);
  return {{"preset", preset.name},
          {"input", input},
          {"tokens", tokens},
          {"union_density", density},
          {"gate_us", t.gate},
          {"step2_us", t.step2},
          {"step3_us", t.step3},
          {"whole_us", t.whole},
          {"fused_us", t.fused},
          {"dense_us", t.dense},
          {"dense_up_us", t.dense_up},
          {"floor_us", floor},
          {"dense_down_us", t.dense_down},
          {"floor_bytes", floor_bytes},
          {"read_bandwidth", bandwidth},
          {"host_to_host_us", t.host_to_host}};
}

absl::Status RunPreset(const Preset& preset, const Options& options,
                       nlohmann::json* report) {
  auto bench = Bench::New(preset, options);
  if (!bench.ok()) return bench.status();
  auto bandwidth = (*bench)->ReadBandwidth();
  if (!bandwidth.ok()) return bandwidth.status();
  std::printf("%s: plain read %.2f TB/s\n", preset.name, *bandwidth / 1e12);
  const auto run = [&](const std::string& input, int tokens,
                       const Masks& masks) -> absl::Status {
    auto times = (*bench)->Time(tokens, masks);
    if (!times.ok()) return times.status();
    report->push_back(Report(
        preset, input, tokens, UnionDensity(masks, preset.intermediate_size),
        static_cast<double>((*bench)->matrix_bytes()), *bandwidth, *times));
    return absl::OkStatus();
  };
  for (int tokens : options.tokens) {
    for (double sparsity : options.sparsities) {
      char input[32];
      std::snprintf(input, sizeof(input), "%.4g%%", 100 * sparsity);
      absl::Status status =
          run(input, tokens,
              RandomMasks(options.layers, tokens, preset.intermediate_size,
                          sparsity));
      if (!status.ok()) return status;
    }
    if (options.replay.empty()) continue;
    auto rows = ReadNpy(options.replay);
    if (!rows.ok()) return rows.status();
    auto masks =
        ReplayedMasks(*rows, options.layers, tokens, preset.intermediate_size);
    if (!masks.ok()) return masks.status();
    absl::Status status = run("real rows", tokens, *masks);
    if (!status.ok()) return status;
  }
  if (options.compare > 0) return (*bench)->Compare(options.compare);
  return absl::OkStatus();
}

absl::Status RunAll(const Options& options) {
  cudaDeviceProp device;
  absl::Status status =
      ToStatus(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  if (!status.ok()) return status;
  std::printf("%s, %s weights, %d layers, us a layer\n", device.name,
              options.half ? "float16" : "bfloat16", options.layers);
  std::printf(
      "%-14s %-9s %4s %7s %7s %7s %7s %7s %7s %7s %7s %6s %6s %6s %6s %7s\n",
      "preset", "sparsity", "tok", "union", "gate", "step2", "step3", "whole",
      "fused", "dense", "floor", "TB/s", "of bw", "/floor", "vs dns", "h2h");
  nlohmann::json report = nlohmann::json::array();
  for (const Preset& preset : kPresets) {
    if (std::find(options.presets.begin(), options.presets.end(),
                  preset.name) == options.presets.end()) {
      continue;
    }
    status = RunPreset(preset, options, &report);
    if (!status.ok()) return status;
  }
  if (!options.json.empty()) std::ofstream(options.json) << report.dump(1);
  return absl::OkStatus();
}

}  // namespace
}  // namespace sparse_ffn::bench

int main(int argc, char** argv) try {
  sparse_ffn::bench::Options options;
  CLI::App app("Times the CUDA kernels of sparse-ffn-server.");
  app.add_option("--presets", options.presets, "Model sizes")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--sparsities", options.sparsities,
                 "Shares of inactive neurons, 0 to 1, random")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--tokens", options.tokens, "Tokens of a batch")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--replay", options.replay,
                 "Activation rows (.npy) to take the active neurons from");
  app.add_option("--layers", options.layers, "Layers to rotate over")
      ->capture_default_str();
  app.add_option("--compare", options.compare,
                 "Also run that many fresh tokens fused and in steps, over the "
                 "last case's layers, and compare");
  app.add_flag("--half", options.half, "float16 instead of bfloat16");
  app.add_option("--json", options.json, "File for the figures");
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
