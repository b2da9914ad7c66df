#include "server/config.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "kernels/matrix.h"

namespace sparse_ffn {
namespace {

constexpr size_t kMostQueuedTokens = size_t{1} << 24;
constexpr double kMostDrainSeconds = 86400;
constexpr double kMostMeasureSeconds = 60;

// Flags whose text is looked at after the parser is done.
struct FlagText {
  std::string backend = "auto";
  std::string layers;
  std::string activation;
  std::optional<double> threshold;
  std::string weights_dtype;
};

void AddModelFlags(CLI::App* app, ServerConfig* config, FlagText* text) {
  app->add_option("--model", config->model.folder,
                  "Checkpoint folder: config.json and safetensors files; "
                  "required")
      ->type_name("DIR");
  app->add_option("--layers", text->layers,
                  "Layers to hold, such as 0-15 or 0-3,8 (default: all)")
      ->type_name("RANGES");
  app->add_option("--activation", text->activation,
                  "relu, fatrelu or drelu, instead of the checkpoint's")
      ->type_name("NAME");
  app->add_option("--threshold", text->threshold,
                  "Gate score from which a neuron is active, with fatrelu; "
                  "instead of the checkpoint's")
      ->type_name("NUMBER");
  app->add_option("--weights-dtype", text->weights_dtype,
                  "bfloat16, float16 or float32: convert the weights while "
                  "loading (default: as stored)")
      ->type_name("TYPE");
}

void AddDeviceFlags(CLI::App* app, ServerConfig* config, FlagText* text) {
  app->add_option("--backend", text->backend,
                  "auto (cuda where there is a usable GPU, else cpu; a model "
                  "too large for the GPU ends the start), cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->type_name("NAME")
      ->capture_default_str();
  app->add_option("--device", config->device, "CUDA device number")
      ->check(CLI::Range(0, 1023))
      ->type_name("N")
      ->capture_default_str();
  app->add_option("--threads", config->threads,
                  "Compute threads of the cpu backend; 0: one for each "
                  "processor this process may use")
      ->check(CLI::Range(0, kMaxCpuThreads))
      ->type_name("N")
      ->capture_default_str();
  app->add_flag("--deterministic", config->deterministic,
                "Give a token the same bits in every run and in every batch "
                "on the same device. On a GPU execution auto is then sparse, "
                "and for some sizes and devices sparse tokens run one by one; "
                "a CPU always works so");
  app->add_option("--launch-ahead-us", config->launch_ahead_us,
                  "Longest time, in microseconds, that a launch of the cuda "
                  "backend waits on the device for the batch of up to 16 "
                  "tokens that it foresees, and keeps other processes from "
                  "it; 0: none is made ahead")
      ->check(CLI::Range(0U, kMaxLaunchAheadUs))
      ->type_name("MICROSECONDS")
      ->capture_default_str();
  app->add_option("--path-costs", config->path_costs,
                  "Times of the sparse, dense and fused paths, by which the "
                  "cuda backend chooses: read from FILE if that exists, else "
                  "measured at start and written to it (default: measured at "
                  "every start); the cpu backend is always sparse")
      ->type_name("FILE");
  app->add_option("--measure-seconds", config->measure_seconds,
                  "Most seconds of calls, 0 to 60, for measuring them; 0: "
                  "not at all; without a FILE a fixed rule then chooses. With "
                  "--deterministic nothing is measured")
      ->type_name("SECONDS")
      ->capture_default_str();
}

void AddServingFlags(CLI::App* app, ServerConfig* config) {
  app->add_option("--listen", config->listen,
                  "Where to answer gRPC calls, host:port or unix:path; may be "
                  "repeated; port 0 takes a free one (default: "
                  "127.0.0.1:50051, this machine alone; 0.0.0.0:50051 for "
                  "every network)")
      ->allow_extra_args(false)
      ->type_name("ADDRESS");
  app->add_option("--metrics", config->metrics,
                  "Where to answer GET /metrics, host:port; empty: nowhere")
      ->type_name("ADDRESS")
      ->capture_default_str();
  app->add_option("--max-batch-tokens", config->max_batch_tokens,
                  "Most tokens of one request and of one batch")
      ->check(CLI::Range(size_t{1}, kMaxBatchTokens))
      ->type_name("TOKENS")
      ->capture_default_str();
  app->add_option("--max-queued-tokens", config->max_queued_tokens,
                  "Most tokens that wait for a batch; requests beyond are "
                  "refused with RESOURCE_EXHAUSTED")
      ->check(CLI::Range(size_t{1}, kMostQueuedTokens))
      ->type_name("TOKENS")
      ->capture_default_str();
  app->add_option("--drain-seconds", config->drain_seconds,
                  "Longest time, in seconds, 0 to 86400, that accepted "
                  "requests get to finish after SIGTERM or SIGINT")
      ->type_name("SECONDS")
      ->capture_default_str();
}

absl::Status FlagError(const std::string& message) {
  return absl::InvalidArgumentError(message);
}

// The parser would take an empty value for none, or for 0.
absl::Status CheckNoneIsEmpty(const std::vector<std::string>& args) {
  for (size_t i = 0; i < args.size(); ++i) {
    if (!args[i].empty() || (i > 0 && args[i - 1] == "--metrics")) continue;
    return FlagError(absl::StrCat(i > 0 ? args[i - 1] : "the first argument",
                                  ": expected a value, found \"\""));
  }
  return absl::OkStatus();
}

absl::Status SetModelOptions(const FlagText& text, ModelOptions* model) {
  if (!text.layers.empty()) {
    absl::StatusOr<std::vector<LayerRange>> ranges =
        ParseLayerRanges(text.layers);
    if (!ranges.ok()) {
      return FlagError(absl::StrCat("--layers: ", ranges.status().message()));
    }
    model->layers = *std::move(ranges);
  }
  if (!text.activation.empty()) {
    absl::StatusOr<Activation> activation = ParseActivation(text.activation);
    if (!activation.ok()) {
      return FlagError(
          absl::StrCat("--activation: ", activation.status().message()));
    }
    model->activation = *activation;
  }
  if (text.threshold.has_value()) {
    if (!std::isfinite(*text.threshold) || *text.threshold < 0) {
      return FlagError(absl::StrCat("--threshold: ", *text.threshold,
                                    " is not a finite number >= 0"));
    }
    model->threshold = text.threshold;
  }
  if (!text.weights_dtype.empty()) {
    model->weights_dtype = ParseDataType(text.weights_dtype);
    if (!model->weights_dtype.has_value()) {
      return FlagError(absl::StrCat("--weights-dtype: \"",
                                    text.weights_dtype.substr(0, 64),
                                    "\" is not one of bfloat16, float16, "
                                    "float32"));
    }
  }
  return absl::OkStatus();
}

// True for "host:port", "[v6]:port" and ":port" with a port 0 to 65535.
bool IsHostPort(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return false;
  const std::string host = address.substr(0, colon);
  const std::string port = address.substr(colon + 1);
  const bool bracketed =
      host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (!bracketed && host.find_first_of(":[]/ ,") != std::string::npos) {
    return false;
  }
  uint32_t number = 0;
  return !port.empty() &&
         std::all_of(port.begin(), port.end(), absl::ascii_isdigit) &&
         absl::SimpleAtoi(port, &number) && number <= 65535;
}

absl::Status CheckAddresses(const ServerConfig& config) {
  for (const std::string& address : config.listen) {
    const bool good = absl::StartsWith(address, "unix:") ? address.size() > 5
                                                         : IsHostPort(address);
    if (!good) {
      return FlagError(absl::StrCat("--listen: \"", address,
                                    "\" is neither host:port nor unix:path"));
    }
  }
  if (!config.metrics.empty() && !IsHostPort(config.metrics)) {
    return FlagError(
        absl::StrCat("--metrics: \"", config.metrics, "\" is not host:port"));
  }
  return absl::OkStatus();
}

absl::Status CheckSeconds(const char* flag, double seconds, double most) {
  // So that NaN is refused.
  if (seconds >= 0 && seconds <= most) return absl::OkStatus();
  return FlagError(absl::StrCat(
      flag, ": ", seconds, " is not a number of seconds from 0 to ", most));
}

absl::Status CheckPathCosts(const ServerConfig& config) {
  if (!config.deterministic || config.path_costs.empty()) {
    return absl::OkStatus();
  }
  return FlagError(
      "--path-costs: with --deterministic no path is chosen by its time; give "
      "one of the two");
}

absl::Status Settle(const FlagText& text, ServerConfig* config) {
  if (config->model.folder.empty()) return FlagError("--model is required");
  absl::Status model = SetModelOptions(text, &config->model);
  if (!model.ok()) return model;
  config->backend = text.backend == "cpu"    ? BackendChoice::kCpu
                    : text.backend == "cuda" ? BackendChoice::kCuda
                                             : BackendChoice::kAuto;
  if (config->listen.empty()) config->listen = {"127.0.0.1:50051"};
  absl::Status addresses = CheckAddresses(*config);
  if (!addresses.ok()) return addresses;
  absl::Status seconds =
      CheckSeconds("--drain-seconds", config->drain_seconds, kMostDrainSeconds);
  seconds.Update(CheckSeconds("--measure-seconds", config->measure_seconds,
                              kMostMeasureSeconds));
  if (!seconds.ok()) return seconds;
  absl::Status path_costs = CheckPathCosts(*config);
  if (!path_costs.ok()) return path_costs;
  if (config->max_queued_tokens < config->max_batch_tokens) {
    return FlagError(absl::StrCat(
        "--max-queued-tokens ", config->max_queued_tokens,
        " is less than --max-batch-tokens ", config->max_batch_tokens,
        ": a full request could never be queued"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLine(std::vector<std::string> args) {
  CommandLine line;
  line.config.metrics = "127.0.0.1:9090";
  FlagText text;
  CLI::App app("Answers FFN requests for a ReLU-activated model over gRPC.",
               "sparse-ffn-server");
  app.set_version_flag("--version", "sparse-ffn-server " SPARSE_FFN_VERSION);
  AddModelFlags(&app, &line.config, &text);
  AddDeviceFlags(&app, &line.config, &text);
  AddServingFlags(&app, &line.config);
  // The parser takes "--metrics=" for a flag without its value.
  const auto none = std::find(args.begin(), args.end(), "--metrics=");
  if (none != args.end()) args.insert(args.erase(none), {"--metrics", ""});
  absl::Status none_empty = CheckNoneIsEmpty(args);
  if (!none_empty.ok()) return none_empty;
  std::reverse(args.begin(), args.end());  // As the parser wants a vector.
  try {
    app.parse(args);
  } catch (const CLI::CallForHelp&) {
    line.print = app.help();
    return line;
  } catch (const CLI::CallForVersion&) {
    line.print = "sparse-ffn-server " SPARSE_FFN_VERSION "\n";
    return line;
  } catch (const CLI::Error& error) {
    return FlagError(
        absl::StrReplaceAll(error.what(), {{"\n", " "}, {"\r", " "}}));
  }
  absl::Status settled = Settle(text, &line.config);
  if (!settled.ok()) return settled;
  return line;
}

}  // namespace sparse_ffn
