// sparse-ffn-make-model: writes a checkpoint of a real model's shape.

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <exception>
#include <new>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/command_line.h"
#include "client/make_model/make_model.h"
#include "client/number_option.h"
#include "server/checkpoint/model_config.h"

namespace {

using sparse_ffn::IntegerFrom;
using sparse_ffn::MakeProgress;
using sparse_ffn::ModelSpec;

struct Flags {
  std::string preset;
  std::optional<size_t> hidden_size;
  std::optional<size_t> intermediate_size;
  std::optional<size_t> layers;
  std::optional<double> density;
  std::optional<std::string> activation;
  std::optional<double> threshold;
  std::optional<std::string> dtype;
  ModelSpec spec;  // For the defaults of the rest.
};

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_option("--preset", flags.preset,
                 "Sizes, activation, type and density of a real model: " +
                     absl::StrJoin(sparse_ffn::PresetNames(), ", ") +
                     ". Each can be overridden");
  app.add_option("--hidden-size", flags.hidden_size, "Elements")
      ->check(IntegerFrom(1, sparse_ffn::kMaxWidth));
  app.add_option("--intermediate-size", flags.intermediate_size,
                 "Neurons of a layer")
      ->check(IntegerFrom(1, sparse_ffn::kMaxWidth));
  app.add_option("--layers", flags.layers,
                 "Number of layers (default: the preset's, or 1)")
      ->check(IntegerFrom(1, sparse_ffn::kMaxLayers));
  CLI::Option* density = app.add_option(
      "--density", flags.density,
      "Share of neurons active for random inputs of 1 + N(0, 1), 0 to 1 "
      "(default: the preset's, or 0.11)");
  density->check(sparse_ffn::NumberFrom(0, 1));
  app.add_option("--activation", flags.activation,
                 "relu, fatrelu or drelu (default: the preset's, or relu)");
  app.add_option("--threshold", flags.threshold,
                 "Of fatrelu, 0 to 1000 (default: the preset's, or 0.01)")
      ->check(sparse_ffn::NumberFrom(0, sparse_ffn::kMaxThreshold));
  app.add_option("--dtype", flags.dtype,
                 "float32, float16 or bfloat16 (default: the preset's, or "
                 "bfloat16)");
  app.add_option("--seed", flags.spec.seed, "Same seed, same bytes")
      ->check(sparse_ffn::AnySeed())
      ->capture_default_str();
  app.add_option("--shards", flags.spec.shards,
                 "Files to spread the layers over, at most as many as those")
      ->check(IntegerFrom(1, sparse_ffn::kMaxLayers))
      ->capture_default_str();
  app.add_option("--rows", flags.spec.input_rows,
                 "Rows of inputs.npy, without --replay")
      ->check(IntegerFrom(1, sparse_ffn::kMaxInputRows))
      ->capture_default_str();
  app.add_option("--replay", flags.spec.replay,
                 "Activation rows (.npy, float16 or float32, a column for "
                 "each neuron) that inputs.npy is to reproduce")
      ->excludes(density);
  app.add_option("--out", flags.spec.out,
                 "Folder to write. A model that was made there before is "
                 "replaced, all its files; a folder with another checkpoint "
                 "(one without inputs.npy) is refused")
      ->required();
}

absl::StatusOr<ModelSpec> SpecFrom(const Flags& flags) {
  ModelSpec spec = flags.spec;
  if (!flags.preset.empty()) {
    absl::StatusOr<ModelSpec> preset = sparse_ffn::PresetModel(flags.preset);
    if (!preset.ok()) return preset.status();
    spec = *preset;
    spec.seed = flags.spec.seed;
    spec.shards = flags.spec.shards;
    spec.input_rows = flags.spec.input_rows;
    spec.replay = flags.spec.replay;
    spec.out = flags.spec.out;
  }
  if (flags.hidden_size) spec.hidden_size = *flags.hidden_size;
  if (flags.intermediate_size) {
    spec.intermediate_size = *flags.intermediate_size;
  }
  if (flags.layers) spec.num_layers = *flags.layers;
  if (flags.density) spec.density = *flags.density;
  if (flags.activation && *flags.activation != spec.activation) {
    spec.activation = *flags.activation;
    spec.threshold = spec.activation == "fatrelu" ? 0.01 : 0;
  }
  if (flags.threshold) spec.threshold = *flags.threshold;
  if (flags.dtype) {
    const std::optional<sparse_ffn::DataType> dtype =
        sparse_ffn::ParseDataType(*flags.dtype);
    if (!dtype.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("dtype: expected float32, float16 or bfloat16, found ",
                       *flags.dtype));
    }
    spec.dtype = *dtype;
  }
  return spec;
}

absl::Status Run(const Flags& flags) {
  absl::StatusOr<ModelSpec> spec = SpecFrom(flags);
  if (!spec.ok()) return spec.status();
  const auto start = std::chrono::steady_clock::now();
  uint64_t bytes = 0;
  absl::Status status =
      sparse_ffn::MakeModel(*spec, [&](const MakeProgress& now) {
        bytes = now.bytes_written;
        std::fprintf(stderr, "layer %zu of %zu, %.1f MB of weights\n",
                     now.layers_done, now.layers_total,
                     static_cast<double>(bytes) * 1e-6);
      });
  if (!status.ok()) return status;
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  std::printf(
      "%s: %zu layers, hidden %zu, intermediate %zu, %s, %s, %.1f MB of "
      "weights in %.1f s\n",
      spec->out.c_str(), spec->num_layers, spec->hidden_size,
      spec->intermediate_size, sparse_ffn::DataTypeName(spec->dtype),
      spec->activation.c_str(), static_cast<double>(bytes) * 1e-6, seconds);
  return absl::OkStatus();
}

int RunProgram(int argc, char** argv) {
  CLI::App app(
      "Writes a checkpoint in Hugging Face layout with the FFN weights of a "
      "ReLU-activated model, and inputs.npy to drive it.",
      "sparse-ffn-make-model");
  Flags flags;
  AddFlags(app, flags);
  const std::optional<int> exit_code =
      sparse_ffn::ParseCommandLine(&app, argc, argv);
  if (exit_code.has_value()) return *exit_code;
  if (flags.preset.empty() &&
      !(flags.hidden_size.has_value() && flags.intermediate_size.has_value())) {
    return sparse_ffn::RejectCommandLine(
        app, "expected --preset, or --hidden-size and --intermediate-size");
  }
  const absl::Status status = Run(flags);
  if (status.ok()) return 0;
  std::fprintf(stderr, "sparse-ffn-make-model: %s\n",
               std::string(status.message()).c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return RunProgram(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr,
                 "sparse-ffn-make-model: there is not enough memory for the "
                 "matrices of a layer of these sizes\n");
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "sparse-ffn-make-model: %s\n", error.what());
    return 1;
  }
}
