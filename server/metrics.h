// What the server tells Prometheus. Every series is made before the first
// request; recording only adds to them. Any thread may call the functions;
// Expose and SetModel once each, SetModel before the first RecordBatch.
#ifndef SPARSE_FFN_SERVER_METRICS_H_
#define SPARSE_FFN_SERVER_METRICS_H_

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/ffn_backend.h"
#include "server/batcher.h"

namespace prometheus {
class Counter;
class Exposer;
class Gauge;
class Histogram;
class Registry;
}  // namespace prometheus

namespace sparse_ffn {

class SampledMetrics;

enum class RpcMethod : uint8_t { kForward, kStreamForward, kGetModelInfo };

enum class RejectReason : uint8_t {
  kQueueFull,
  kDeadline,
  kCancelled,
  kDraining,
  kInvalid,
  kOutOfMemory,  // Reserved: every buffer is made at start.
};

// What is known once the model is loaded.
struct MetricsModel {
  std::string name;
  std::string weights_hash;
  std::string backend;
  FfnConfig config;
  std::vector<int> layers;
  size_t weights_bytes = 0;
};

class Metrics {
 public:
  // Registers everything that needs no model. `version` of the server.
  explicit Metrics(const std::string& version);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // Once, before the first RecordBatch.
  void SetModel(const MetricsModel& model);

  // Asked at each scrape, by the scraping thread; 0 while unset. An empty
  // function unsets it: whatever the function reads may then go.
  void SetQueuedTokensSource(std::function<size_t()> source);
  void SetRequestsInFlightSource(std::function<size_t()> source);

  void RecordRequest(RpcMethod method, absl::StatusCode code,
                     std::chrono::steady_clock::duration duration);
  void RecordRejected(RejectReason reason);
  void RecordBatch(const BatchRecord& batch);

  // Answers GET /metrics at `address` (host:port; port 0 takes a free one)
  // until this object goes, and returns the port. UNAVAILABLE when the port
  // cannot be had.
  absl::StatusOr<int> Expose(const std::string& address);

  // All series in the text format, as a scrape would get them.
  std::string Text() const;

 private:
  struct LayerSeries;
  struct Work;
  enum Stage {
    kQueue,
    kCopyIn,
    kGate,
    kUp,
    kDown,
    kCopyOut,
    kCompute,
    kStages
  };
  enum WeightMatrix { kGateProj, kUpProj, kDownProj, kMatrices };
  static constexpr size_t kMethods = 3;
  static constexpr size_t kCodes = 17;
  static constexpr size_t kReasons = 6;

  void AddRequestSeries();
  void AddStageSeries();
  void AddWeightSeries();
  void AddLayerSeries(const std::vector<int>& layers);
  void RecordStages(const BatchRecord& batch);
  void RecordSparsity(const BatchRecord& batch, LayerSeries* series);
  void RecordWeightBytes(FfnPath path, const Work& work);

  const std::shared_ptr<prometheus::Registry> registry_;
  const std::shared_ptr<SampledMetrics> sampled_;
  // Indexed by RpcMethod and absl::StatusCode; codes that the server never
  // gives share the series of INTERNAL.
  std::array<std::array<prometheus::Histogram*, kCodes>, kMethods> requests_{};
  std::array<prometheus::Counter*, kReasons> rejected_{};
  std::array<prometheus::Histogram*, kStages> stages_{};
  std::array<prometheus::Counter*, kMatrices> bytes_read_{};
  std::array<prometheus::Counter*, kMatrices> bytes_skipped_{};
  std::array<prometheus::Counter*, kFfnPaths> batches_{};  // By FfnPath.
  prometheus::Counter* launched_ahead_ = nullptr;
  prometheus::Histogram* batch_tokens_ = nullptr;
  prometheus::Histogram* token_sparsity_ = nullptr;

  // Constant after SetModel.
  size_t intermediate_size_ = 0;
  size_t row_bytes_ = 0;
  std::vector<std::unique_ptr<LayerSeries>> layers_;  // By layer; may be null.

  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_METRICS_H_
