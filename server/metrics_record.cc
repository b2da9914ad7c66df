// What a request and a batch add to the series.
#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/types/span.h"
#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "server/metrics.h"
#include "server/metrics_series.h"

namespace sparse_ffn {
namespace {

constexpr double kSecondsPerNs = 1e-9;
// Tokens over which the recent mean of a layer looks back.
constexpr double kRecentTokens = 1024;

}  // namespace

// A batch as the lane ran it.
struct Metrics::Work {
  const FfnPass whole;
  const absl::Span<const FfnPass> passes;
  double union_active = 0;  // Summed over the passes.

  explicit Work(const BatchRecord& batch)
      : whole{static_cast<uint32_t>(batch.tokens),
              batch.stats.union_active_neurons},
        passes(batch.stats.passes.empty() ? absl::MakeConstSpan(&whole, 1)
                                          : batch.stats.passes) {
    for (const FfnPass& pass : passes) {
      union_active += pass.union_active_neurons;
    }
  }
  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;
};

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
  const auto batches = static_cast<double>(work.passes.size());
  batches_[static_cast<size_t>(batch.stats.path)]->Increment(batches);
  if (batch.stats.launched_ahead) launched_ahead_->Increment();
  for (const FfnPass& pass : work.passes) batch_tokens_->Observe(pass.tokens);
  const auto tokens = static_cast<double>(batch.tokens);
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
  const std::vector<double>& bounds = SparsityBuckets();
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
  const auto rows =
      static_cast<double>(work.passes.size() * intermediate_size_);
  const double used = path == FfnPath::kDense ? rows : work.union_active;
  bytes_read_[kGateProj]->Increment(rows * row_bytes);
  for (WeightMatrix matrix : {kUpProj, kDownProj}) {
    bytes_read_[matrix]->Increment(used * row_bytes);
    bytes_skipped_[matrix]->Increment((rows - used) * row_bytes);
  }
}

}  // namespace sparse_ffn
