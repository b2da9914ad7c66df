// sparse-ffn-server: loads a checkpoint and answers FFN requests until told to
// stop.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/batcher.h"
#include "server/checkpoint/layer_ranges.h"
#include "server/config.h"
#include "server/load_model.h"
#include "server/logging.h"
#include "server/metrics.h"
#include "server/prepare_paths.h"
#include "server/service/ffn_server.h"
#include "server/signals.h"
#include "server/start_backend.h"

namespace sparse_ffn {
namespace {

constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;
constexpr double kGigabyte = 1e9;
// A lane of a GPU waits this long for the next layer's request before its
// thread sleeps. On the portable backend the same processors compute, and
// sleeping costs little beside that.
constexpr std::chrono::microseconds kCudaSpin{50};

// What the batch on the device gets beyond --drain-seconds.
constexpr std::chrono::seconds kLastBatchGrace{1};

// Twice the largest valid request, so that one that is somewhat too large gets
// an answer that says what is wrong.
size_t MaxRequestBytes(const FfnConfig& ffn) {
  constexpr size_t kSlack = size_t{1} << 20;
  constexpr size_t kMost = size_t{1} << 30;
  const size_t rows = ffn.max_batch_tokens * ffn.hidden_size * sizeof(float);
  return std::min(2 * rows + kSlack, std::max(kMost, rows + kSlack));
}

void LogProgress(const LoadProgress& progress) {
  const double seconds = std::max(progress.seconds, 1e-9);
  const double gigabytes = static_cast<double>(progress.bytes_read) / kGigabyte;
  LogInfo("loading",
          {{"layers_done", progress.layers_done},
           {"layers_total", progress.layers_total},
           {"gb_per_s", absl::StrFormat("%.2f", gigabytes / seconds)}});
}

// While loading: nothing was accepted yet, so nothing is lost.
void ExitIfTold(FfnServer* server) {
  if (!TakeStopSignal()) return;
  LogInfo("stopped while loading");
  server->Drain(std::chrono::seconds(0));
  std::_Exit(EXIT_SUCCESS);
}

v1::GetModelInfoReply ModelInfo(const ModelPlan& plan,
                                const FfnBackend& backend,
                                const std::string& weights_hash) {
  v1::GetModelInfoReply info;
  info.set_model_name(plan.name);
  for (int layer : plan.layers) {
    info.add_layers(static_cast<uint32_t>(layer));
  }
  info.set_hidden_size(static_cast<uint32_t>(plan.config.hidden_size));
  info.set_intermediate_size(
      static_cast<uint32_t>(plan.config.intermediate_size));
  info.set_weights_dtype(ToWire(plan.config.weights_dtype));
  info.set_activation(ActivationName(plan.config.activation));
  info.set_threshold(plan.config.threshold);
  info.set_backend(backend.name());
  info.set_device_name(backend.device_name());
  info.set_max_batch_tokens(
      static_cast<uint32_t>(plan.config.max_batch_tokens));
  info.set_weights_hash(weights_hash);
  info.set_server_version(SPARSE_FFN_VERSION);
  return info;
}

ServedModel MakeServedModel(const ModelPlan& plan, const FfnBackend& backend,
                            const LoadedModel& loaded, Batcher* batcher) {
  ServedModel model;
  model.batcher = batcher;
  model.limits.hidden_size = plan.config.hidden_size;
  model.limits.intermediate_size = plan.config.intermediate_size;
  model.limits.max_batch_tokens = plan.config.max_batch_tokens;
  model.limits.weights_dtype = plan.config.weights_dtype;
  model.limits.layers.assign(plan.layers.begin(), plan.layers.end());
  model.info = ModelInfo(plan, backend, loaded.weights_hash);
  return model;
}

BatcherOptions MakeBatcherOptions(const ServerConfig& config,
                                  const FfnBackend& backend, Metrics* metrics,
                                  FfnServer* server) {
  BatcherOptions options;
  options.max_batch_tokens = config.max_batch_tokens;
  options.max_queued_tokens = config.max_queued_tokens;
  if (IsCuda(backend)) options.spin = kCudaSpin;
  options.on_batch = [metrics](const BatchRecord& batch) {
    metrics->RecordBatch(batch);
  };
  options.on_failure = [server](const absl::Status& status) {
    LogError("the device failed; not serving any more",
             {{"status", status.ToString()}});
    server->SetNotServing();
  };
  return options;
}

void WarnOfAbsentLayers(const ModelOptions& options, const ModelPlan& plan) {
  const size_t expected = plan.checkpoint.config().num_hidden_layers;
  const std::vector<int>& held = plan.checkpoint.layers();
  if (!options.layers.empty() || held.size() == expected) return;
  LogWarning("the checkpoint holds fewer layers than its config.json says",
             {{"layers_held", held.size()},
              {"num_hidden_layers", expected},
              {"layers", FormatLayers(held)}});
}

absl::StatusOr<LoadedModel> Load(const ServerConfig& config,
                                 const ModelPlan& plan, FfnBackend* backend,
                                 FfnServer* server) {
  const absl::StatusOr<bool> paths_known =
      ReadPaths(config, plan.config, backend);
  if (!paths_known.ok()) return paths_known.status();
  absl::StatusOr<LoadedModel> loaded =
      LoadLayers(plan, *backend, [server](const LoadProgress& progress) {
        LogProgress(progress);
        ExitIfTold(server);
      });
  if (!loaded.ok()) return loaded;
  LogInfo("model loaded",
          {{"model", plan.name},
           {"layers", plan.layers.size()},
           {"hidden_size", plan.config.hidden_size},
           {"intermediate_size", plan.config.intermediate_size},
           {"dtype", DataTypeName(plan.config.weights_dtype)},
           {"activation", ActivationName(plan.config.activation)},
           {"threshold", plan.config.threshold},
           {"bytes_on_device", loaded->bytes_on_device},
           {"seconds", absl::StrFormat("%.2f", loaded->seconds)},
           {"weights_hash", loaded->weights_hash}});
  if (*paths_known) return loaded;
  absl::Status measured = MeasurePaths(config, plan.config, backend,
                                       [server] { ExitIfTold(server); });
  if (!measured.ok()) return measured;
  return loaded;
}

absl::Status OpenAddresses(const ServerConfig& config, const FfnConfig& ffn,
                           Metrics* metrics,
                           std::unique_ptr<FfnServer>* server) {
  FfnServerOptions options;
  options.listen = config.listen;
  options.max_request_bytes = MaxRequestBytes(ffn);
  absl::StatusOr<std::unique_ptr<FfnServer>> listening =
      FfnServer::Listen(options, metrics);
  if (!listening.ok()) return listening.status();
  *server = *std::move(listening);
  for (const std::string& address : (*server)->addresses()) {
    LogInfo("listening", {{"address", address}});
  }
  if (config.metrics.empty()) return absl::OkStatus();
  absl::StatusOr<int> port = metrics->Expose(config.metrics);
  if (!port.ok()) return port.status();
  const std::string host = config.metrics.substr(0, config.metrics.rfind(':'));
  LogInfo("metrics",
          {{"url", absl::StrCat("http://", host, ":", *port, "/metrics")}});
  return absl::OkStatus();
}

absl::Status ServeUntilStopped(const ServerConfig& config, Batcher* batcher,
                               ServedModel model, FfnServer* server) {
  server->Serve(std::move(model));
  LogInfo("serving");
  const int signal_number = WaitForStopSignal();
  ExitOnStopSignal();
  LogInfo("draining", {{"signal", signal_number},
                       {"queued_tokens", batcher->queued_tokens()}});
  const auto timeout =
      std::chrono::duration_cast<std::chrono::steady_clock::duration>(
          std::chrono::duration<double>(config.drain_seconds));
  if (server->Drain(timeout)) {
    LogInfo("drained");
    return absl::OkStatus();
  }
  if (!batcher->WaitIdle(std::chrono::steady_clock::now() + kLastBatchGrace)) {
    LogError("stopped with requests still on the device",
             {{"drain_seconds", config.drain_seconds},
              {"not_answered", server->unanswered_requests()}});
    std::_Exit(kExitFailure);
  }
  if (server->unanswered_requests() > 0) {
    return absl::DeadlineExceededError(absl::StrCat(
        "accepted requests not answered within --drain-seconds ",
        config.drain_seconds, ": ", server->unanswered_requests()));
  }
  LogWarning(
      "drained; calls whose clients did not take their replies in time "
      "were cut",
      {{"drain_seconds", config.drain_seconds}});
  return absl::OkStatus();
}

absl::Status LoadAndServe(const ServerConfig& config, const ModelPlan& plan,
                          Metrics* metrics, FfnServer* server) {
  absl::StatusOr<std::unique_ptr<FfnBackend>> backend =
      StartBackend(config, plan.config);
  if (!backend.ok()) return backend.status();
  absl::StatusOr<LoadedModel> loaded =
      Load(config, plan, backend->get(), server);
  if (!loaded.ok()) return loaded.status();
  absl::StatusOr<std::unique_ptr<FfnLane>> lane = (*backend)->NewLane();
  if (!lane.ok()) return lane.status();
  absl::Status canary =
      RunCanary(plan.config, plan.layers, **backend, lane->get());
  if (!canary.ok()) return canary;
  metrics->SetModel({plan.name, loaded->weights_hash, (*backend)->name(),
                     plan.config, plan.layers, (*backend)->weights_bytes()});
  std::vector<std::unique_ptr<FfnLane>> lanes;
  lanes.push_back(*std::move(lane));
  Batcher batcher(MakeBatcherOptions(config, **backend, metrics, server),
                  std::move(lanes));
  return ServeUntilStopped(config, &batcher,
                           MakeServedModel(plan, **backend, *loaded, &batcher),
                           server);
}

int ExitCode(const absl::Status& status) {
  if (status.ok()) return EXIT_SUCCESS;
  LogError(status.message());
  return kExitFailure;
}

// Returns what the program ends with. What went wrong is said before the
// addresses close, which takes that of the metrics up to two seconds.
int RunServer(const ServerConfig& config) {
  absl::StatusOr<ModelPlan> plan = OpenModel(config.model);
  if (!plan.ok()) return ExitCode(plan.status());
  WarnOfAbsentLayers(config.model, *plan);
  plan->config.max_batch_tokens = config.max_batch_tokens;
  plan->config.deterministic = config.deterministic;
  plan->config.launch_ahead_us = config.launch_ahead_us;
  Metrics metrics(SPARSE_FFN_VERSION);
  std::unique_ptr<FfnServer> server;
  absl::Status opened = OpenAddresses(config, plan->config, &metrics, &server);
  if (!opened.ok()) return ExitCode(opened);
  return ExitCode(LoadAndServe(config, *plan, &metrics, server.get()));
}

}  // namespace
}  // namespace sparse_ffn

int main(int argc, char** argv) {
  // gRPC's own messages would stand beside the records of the log; whoever
  // wants them sets the variable.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  sparse_ffn::BlockStopSignals();
  absl::StatusOr<sparse_ffn::CommandLine> line =
      sparse_ffn::ParseCommandLine({argv + 1, argv + argc});
  if (!line.ok()) {
    std::fprintf(stderr, "sparse-ffn-server: %s\n",
                 std::string(line.status().message()).c_str());
    return sparse_ffn::kExitUsage;
  }
  if (line->print.has_value()) {
    std::fputs(line->print->c_str(), stdout);
    return EXIT_SUCCESS;
  }
  return sparse_ffn::RunServer(line->config);
}
