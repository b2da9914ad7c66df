#include "server/metrics.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "prometheus/counter.h"
#include "prometheus/exposer.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "prometheus/text_serializer.h"
#include "server/metrics_sampled.h"
#include "server/mutex.h"

namespace sparse_ffn {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using Buckets = prometheus::Histogram::BucketBoundaries;

constexpr double kSecondsPerNs = 1e-9;
// Tokens over which the recent mean of a layer looks back.
constexpr double kRecentTokens = 1024;

Buckets DurationBuckets() {
  constexpr double kFirst = 5e-6;
  constexpr double kFactor = 1.5;
  constexpr int kCount = 31;  // The last one is 0.96 s.
  Buckets buckets;
  double bound = kFirst;
  for (int i = 0; i < kCount; ++i, bound *= kFactor) buckets.push_back(bound);
  return buckets;
}

Buckets TokenBuckets() {
  return {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192};
}

const Buckets& SparsityBuckets() {
  static const Buckets* const buckets = new Buckets{
      0.1,  0.2,  0.3,  0.4, 0.5,  0.6,  0.65, 0.7,  0.75, 0.8,  0.82, 0.84,
      0.86, 0.88, 0.89, 0.9, 0.91, 0.92, 0.94, 0.96, 0.98, 0.99, 1};
  return *buckets;
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

// A batch as the lane ran it: as one, or as one of each token.
struct Metrics::Work {
  size_t batches = 1;
  double union_active = 0;  // Summed over the batches.

  explicit Work(const BatchRecord& batch)
      : union_active(batch.stats.union_active_neurons) {
    if (!batch.stats.one_by_one) return;
    const absl::Span<const uint32_t> active = batch.stats.active_neurons;
    batches = batch.tokens;
    union_active = std::accumulate(active.begin(), active.end(), 0.0);
  }
};

struct Metrics::LayerSeries {
  prometheus::Gauge* recent_sparsity;
  prometheus::Counter* active;
  prometheus::Counter* evaluated;
  prometheus::Counter* union_active;
  prometheus::Counter* union_evaluated;
  prometheus::Counter* compute_seconds;
  prometheus::Counter* tokens;
  prometheus::Counter* batches;
  Mutex mutex;
  bool seen ABSL_GUARDED_BY(mutex) = false;
  double recent ABSL_GUARDED_BY(mutex) = 0;
};

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
                         "per batch, with --deterministic over all tokens that "
                         "were computed together; stages that the backend does "
                         "not measure stay empty")
                     .Register(*registry_);
  for (size_t i = 0; i < kStages; ++i) {
    stages_[i] = &stages.Add({{"stage", kStageNames[i]}}, DurationBuckets());
  }
  batch_tokens_ = &BuildHistogram()
                       .Name("sparse_ffn_batch_tokens")
                       .Help("Tokens of a batch")
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
  auto& batches = BuildCounter()
                      .Name("sparse_ffn_batches_total")
                      .Help("Batches by the kernels that ran")
                      .Register(*registry_);
  for (FfnPath path : {FfnPath::kSparse, FfnPath::kDense, FfnPath::kFused}) {
    batches_[static_cast<size_t>(path)] =
        &batches.Add({{"path", FfnPathName(path)}});
  }
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
  auto& union_active =
      counter("sparse_ffn_union_neurons_active_total",
              "Neurons active for any token of a batch, summed over batches");
  auto& union_evaluated = counter("sparse_ffn_union_neurons_evaluated_total",
                                  "Neurons of the layer, summed over batches");
  auto& seconds = counter("sparse_ffn_layer_compute_seconds_total",
                          "Time in batches of the layer, seconds");
  auto& tokens = counter("sparse_ffn_layer_tokens_total", "Tokens computed");
  auto& batches = counter("sparse_ffn_layer_batches_total", "Batches computed");
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

void Metrics::RecordRequest(RpcMethod method, absl::StatusCode code,
                            std::chrono::steady_clock::duration duration) {
  const size_t index =
      std::min(static_cast<size_t>(code), static_cast<size_t>(kCodes - 1));
  requests_[static_cast<size_t>(method)][index]->Observe(
      std::chrono::duration<double>(duration).count());
}

void Metrics::RecordRejected(RejectReason reason) {
  rejected_[static_cast<size_t>(reason)]->Increment();
}

void Metrics::RecordBatch(const BatchRecord& batch) {
  const Work work(batch);
  RecordStages(batch);
  RecordWeightBytes(batch.stats.path, work);
  const auto batches = static_cast<double>(work.batches);
  batches_[static_cast<size_t>(batch.stats.path)]->Increment(batches);
  const auto tokens = static_cast<double>(batch.tokens);
  for (size_t i = 0; i < work.batches; ++i) {
    batch_tokens_->Observe(tokens / batches);
  }
  const auto index = static_cast<size_t>(batch.layer);
  if (index >= layers_.size() || layers_[index] == nullptr) return;
  LayerSeries* series = layers_[index].get();
  series->batches->Increment(batches);
  series->tokens->Increment(tokens);
  series->compute_seconds->Increment(
      static_cast<double>(batch.stats.compute_ns) * kSecondsPerNs);
  series->union_active->Increment(work.union_active);
  series->union_evaluated->Increment(batches *
                                     static_cast<double>(intermediate_size_));
  RecordSparsity(batch, series);
}

void Metrics::RecordStages(const BatchRecord& batch) {
  for (uint64_t ns : batch.queue_ns) {
    stages_[kQueue]->Observe(static_cast<double>(ns) * kSecondsPerNs);
  }
  const auto observe = [this](Stage stage, uint64_t ns) {
    if (ns > 0) {
      stages_[stage]->Observe(static_cast<double>(ns) * kSecondsPerNs);
    }
  };
  observe(kCopyIn, batch.stats.copy_in_ns);
  observe(kGate, batch.stats.gate_ns);
  observe(kUp, batch.stats.up_ns);
  observe(kDown, batch.stats.down_ns);
  observe(kCopyOut, batch.stats.copy_out_ns);
  observe(kCompute, batch.stats.compute_ns);
}

// The tokens of a batch go into the histogram together: it takes a lock for
// each observation.
void Metrics::RecordSparsity(const BatchRecord& batch, LayerSeries* series) {
  const Buckets& bounds = SparsityBuckets();
  thread_local std::vector<double> increments;
  increments.assign(bounds.size() + 1, 0);
  const auto neurons = static_cast<double>(intermediate_size_);
  double sparsity_sum = 0;
  double active_sum = 0;
  for (uint32_t active : batch.stats.active_neurons) {
    const double sparsity = 1 - active / neurons;
    const auto bucket =
        std::lower_bound(bounds.begin(), bounds.end(), sparsity);
    ++increments[static_cast<size_t>(bucket - bounds.begin())];
    sparsity_sum += sparsity;
    active_sum += active;
  }
  token_sparsity_->ObserveMultiple(increments, sparsity_sum);
  const auto tokens = static_cast<double>(batch.tokens);
  series->active->Increment(active_sum);
  series->evaluated->Increment(neurons * tokens);
  MutexLock lock(&series->mutex);
  const double mean = sparsity_sum / tokens;
  const double keep = series->seen ? std::exp(-tokens / kRecentTokens) : 0;
  series->seen = true;
  series->recent = keep * series->recent + (1 - keep) * mean;
  series->recent_sparsity->Set(series->recent);
}

void Metrics::RecordWeightBytes(FfnPath path, const Work& work) {
  const auto row_bytes = static_cast<double>(row_bytes_);
  const auto rows = static_cast<double>(work.batches * intermediate_size_);
  const double used = path == FfnPath::kDense ? rows : work.union_active;
  bytes_read_[kGateProj]->Increment(rows * row_bytes);
  for (WeightMatrix matrix : {kUpProj, kDownProj}) {
    bytes_read_[matrix]->Increment(used * row_bytes);
    bytes_skipped_[matrix]->Increment((rows - used) * row_bytes);
  }
}

absl::StatusOr<int> Metrics::Expose(const std::string& address) {
  try {
    exposer_ = std::make_unique<prometheus::Exposer>(address);
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
