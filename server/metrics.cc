#include "server/metrics.h"

#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "prometheus/counter.h"
#include "prometheus/exposer.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "prometheus/text_serializer.h"
#include "server/metrics_sampled.h"
#include "server/metrics_series.h"

namespace sparse_ffn {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using Buckets = prometheus::Histogram::BucketBoundaries;

// Queries name a bucket by the text of its bound, and the text format writes 16
// digits where it has to: 0.94 as 0.9399999999999999. These are written short.

// Seconds, each some 1.5 times the one before.
Buckets DurationBuckets() {
  return {5e-6,   7.5e-6, 1.1e-5, 1.7e-5, 2.5e-5, 3.8e-5, 5.7e-5, 8.6e-5,
          1.3e-4, 1.9e-4, 2.9e-4, 4.3e-4, 6.5e-4, 9.8e-4, 1.5e-3, 2.2e-3,
          3.3e-3, 4.9e-3, 7.4e-3, 0.011,  0.017,  0.025,  0.037,  0.056,
          0.083,  0.13,   0.19,   0.28,   0.43,   0.64,   0.96};
}

Buckets TokenBuckets() {
  return {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192};
}

struct CodeName {
  absl::StatusCode code;
  const char* name;
};

// Those that the server gives.
constexpr CodeName kCodeNames[] = {
    {absl::StatusCode::kOk, "OK"},
    {absl::StatusCode::kInternal, "INTERNAL"},
    {absl::StatusCode::kCancelled, "CANCELLED"},
    {absl::StatusCode::kInvalidArgument, "INVALID_ARGUMENT"},
    {absl::StatusCode::kDeadlineExceeded, "DEADLINE_EXCEEDED"},
    {absl::StatusCode::kNotFound, "NOT_FOUND"},
    {absl::StatusCode::kResourceExhausted, "RESOURCE_EXHAUSTED"},
    {absl::StatusCode::kUnavailable, "UNAVAILABLE"},
};

constexpr const char* kMethodNames[] = {"Forward", "StreamForward",
                                        "GetModelInfo"};
constexpr const char* kReasonNames[] = {"queue_full", "deadline",
                                        "cancelled",  "draining",
                                        "invalid",    "out_of_memory"};
constexpr const char* kStageNames[] = {"queue", "copy_in",  "gate",   "up",
                                       "down",  "copy_out", "compute"};
constexpr const char* kMatrixNames[] = {"gate", "up", "down"};

std::string CompilerName() {
#if defined(__clang__)
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

}  // namespace

const Buckets& SparsityBuckets() {
  static const Buckets* const buckets = new Buckets{
      0.1,  0.2,  0.3,  0.4, 0.5,  0.6,  0.65, 0.7,  0.75, 0.8,  0.82, 0.84,
      0.86, 0.88, 0.89, 0.9, 0.91, 0.92, 0.93, 0.95, 0.97, 0.98, 0.99, 1};
  return *buckets;
}

Metrics::Metrics(const std::string& version)
    : registry_(std::make_shared<prometheus::Registry>()),
      sampled_(std::make_shared<SampledMetrics>()) {
  BuildGauge()
      .Name("sparse_ffn_build_info")
      .Help("1; what this server was built from")
      .Register(*registry_)
      .Add({{"version", version}, {"compiler", CompilerName()}})
      .Set(1);
  AddRequestSeries();
  AddStageSeries();
  AddWeightSeries();
}

Metrics::~Metrics() = default;

void Metrics::AddRequestSeries() {
  auto& durations =
      BuildHistogram()
          .Name("sparse_ffn_request_duration_seconds")
          .Help(
              "From the arrival of a request until its reply was handed to "
              "the network")
          .Register(*registry_);
  for (size_t method = 0; method < kMethods; ++method) {
    for (const CodeName& code : kCodeNames) {
      const auto index = static_cast<size_t>(code.code);
      requests_[method][index] = &durations.Add(
          {{"method", kMethodNames[method]}, {"code", code.name}},
          DurationBuckets());
    }
    const auto internal = static_cast<size_t>(absl::StatusCode::kInternal);
    for (prometheus::Histogram*& series : requests_[method]) {
      if (series == nullptr) series = requests_[method][internal];
    }
  }
  auto& rejected = BuildCounter()
                       .Name("sparse_ffn_requests_rejected_total")
                       .Help(
                           "Requests refused or dropped before compute; while "
                           "loading and after device failures see the codes "
                           "of request_duration_seconds")
                       .Register(*registry_);
  for (size_t i = 0; i < kReasons; ++i) {
    rejected_[i] = &rejected.Add({{"reason", kReasonNames[i]}});
  }
}

void Metrics::AddStageSeries() {
  auto& stages = BuildHistogram()
                     .Name("sparse_ffn_stage_duration_seconds")
                     .Help(
                         "Time in each stage: queue per request, the others "
                         "per batch, over all passes that it ran in; stages "
                         "that the backend does not measure stay empty")
                     .Register(*registry_);
  for (size_t i = 0; i < kStages; ++i) {
    stages_[i] = &stages.Add({{"stage", kStageNames[i]}}, DurationBuckets());
  }
  batch_tokens_ = &BuildHistogram()
                       .Name("sparse_ffn_batch_tokens")
                       .Help("Tokens of a batch, or of each pass of one")
                       .Register(*registry_)
                       .Add({}, TokenBuckets());
  token_sparsity_ = &BuildHistogram()
                         .Name("sparse_ffn_activation_sparsity_ratio")
                         .Help(
                             "Share of the neurons inactive for a token, one "
                             "observation a token")
                         .Register(*registry_)
                         .Add({}, SparsityBuckets());
}

void Metrics::AddWeightSeries() {
  auto& read = BuildCounter()
                   .Name("sparse_ffn_weight_bytes_read_total")
                   .Help("Bytes of weights that batches needed")
                   .Register(*registry_);
  auto& skipped = BuildCounter()
                      .Name("sparse_ffn_weight_bytes_skipped_total")
                      .Help(
                          "Bytes of weights that batches did not need to "
                          "read, their neurons being inactive")
                      .Register(*registry_);
  for (size_t i = 0; i < kMatrices; ++i) {
    bytes_read_[i] = &read.Add({{"matrix", kMatrixNames[i]}});
    bytes_skipped_[i] = &skipped.Add({{"matrix", kMatrixNames[i]}});
  }
  auto& batches =
      BuildCounter()
          .Name("sparse_ffn_batches_total")
          .Help("Batches, or the passes of a batch, by the kernels that ran")
          .Register(*registry_);
  for (FfnPath path : {FfnPath::kSparse, FfnPath::kDense, FfnPath::kFused}) {
    batches_[static_cast<size_t>(path)] =
        &batches.Add({{"path", FfnPathName(path)}});
  }
  launched_ahead_ =
      &BuildCounter()
           .Name("sparse_ffn_batches_launched_ahead_total")
           .Help(
               "Those of sparse_ffn_batches_total whose launch already "
               "waited for them on the device")
           .Register(*registry_)
           .Add({});
}

void Metrics::SetModel(const MetricsModel& model) {
  const FfnConfig& config = model.config;
  intermediate_size_ = config.intermediate_size;
  row_bytes_ = config.hidden_size * DataTypeBytes(config.weights_dtype);
  BuildGauge()
      .Name("sparse_ffn_weights_bytes")
      .Help("Bytes of weights on the device")
      .Register(*registry_)
      .Add({})
      .Set(static_cast<double>(model.weights_bytes));
  BuildGauge()
      .Name("sparse_ffn_model_info")
      .Help("1; the model that is served")
      .Register(*registry_)
      .Add({{"model", model.name},
            {"dtype", DataTypeName(config.weights_dtype)},
            {"activation", ActivationName(config.activation)},
            {"threshold", absl::StrCat(config.threshold)},
            {"hidden_size", absl::StrCat(config.hidden_size)},
            {"intermediate_size", absl::StrCat(config.intermediate_size)},
            {"layers", absl::StrCat(model.layers.size())},
            {"weights_hash", model.weights_hash},
            {"backend", model.backend}})
      .Set(1);
  AddLayerSeries(model.layers);
}

void Metrics::AddLayerSeries(const std::vector<int>& layers) {
  const auto counter =
      [this](const char* name,
             const char* help) -> prometheus::Family<prometheus::Counter>& {
    return BuildCounter().Name(name).Help(help).Register(*registry_);
  };
  auto& recent = BuildGauge()
                     .Name("sparse_ffn_layer_activation_sparsity_ratio")
                     .Help(
                         "Mean share of the neurons inactive for a token, "
                         "exponentially weighted over about the last 1024 "
                         "tokens of the layer")
                     .Register(*registry_);
  auto& active = counter("sparse_ffn_neurons_active_total",
                         "Active neurons, summed over tokens");
  auto& evaluated = counter("sparse_ffn_neurons_evaluated_total",
                            "Neurons of the layer, summed over tokens");
  auto& union_active = counter("sparse_ffn_union_neurons_active_total",
                               "Neurons active for any token of a batch, or of "
                               "a pass of one, summed over those");
  auto& union_evaluated =
      counter("sparse_ffn_union_neurons_evaluated_total",
              "Neurons of the layer, summed over batches or their passes");
  auto& seconds = counter("sparse_ffn_layer_compute_seconds_total",
                          "Time in batches of the layer, seconds");
  auto& tokens = counter("sparse_ffn_layer_tokens_total", "Tokens computed");
  auto& batches = counter("sparse_ffn_layer_batches_total",
                          "Batches computed, or passes of a batch");
  for (int layer : layers) {
    const auto index = static_cast<size_t>(layer);
    if (layers_.size() <= index) layers_.resize(index + 1);
    const prometheus::Labels labels = {{"layer", absl::StrCat(layer)}};
    auto series = std::make_unique<LayerSeries>();
    series->recent_sparsity = &recent.Add(labels);
    series->active = &active.Add(labels);
    series->evaluated = &evaluated.Add(labels);
    series->union_active = &union_active.Add(labels);
    series->union_evaluated = &union_evaluated.Add(labels);
    series->compute_seconds = &seconds.Add(labels);
    series->tokens = &tokens.Add(labels);
    series->batches = &batches.Add(labels);
    layers_[index] = std::move(series);
  }
}

void Metrics::SetQueuedTokensSource(std::function<size_t()> source) {
  sampled_->SetQueuedTokensSource(std::move(source));
}

void Metrics::SetRequestsInFlightSource(std::function<size_t()> source) {
  sampled_->SetRequestsInFlightSource(std::move(source));
}

absl::StatusOr<int> Metrics::Expose(const std::string& address) {
  try {
    // Its defaults are two threads, and 30 s for a client that says nothing.
    exposer_ = std::make_unique<prometheus::Exposer>(
        std::vector<std::string>{"listening_ports", address, "num_threads", "8",
                                 "request_timeout_ms", "2000"});
    exposer_->RegisterCollectable(registry_);
    exposer_->RegisterCollectable(sampled_);
    const std::vector<int> ports = exposer_->GetListeningPorts();
    if (!ports.empty()) return ports.front();
  } catch (const std::exception&) {
    exposer_ = nullptr;
  }
  return absl::UnavailableError(
      absl::StrCat("cannot answer /metrics at ", address,
                   ": the port is in use or the address is not ours"));
}

std::string Metrics::Text() const {
  std::vector<prometheus::MetricFamily> families = registry_->Collect();
  for (prometheus::MetricFamily& family : sampled_->Collect()) {
    families.push_back(std::move(family));
  }
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace sparse_ffn
