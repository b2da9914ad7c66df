// The metrics that are read when somebody asks instead of being recorded: the
// conventional process_* ones from /proc/self, and two gauges of the queue.
#ifndef SPARSE_FFN_SERVER_METRICS_SAMPLED_H_
#define SPARSE_FFN_SERVER_METRICS_SAMPLED_H_

#include <cstddef>
#include <functional>
#include <vector>

#include "prometheus/collectable.h"
#include "prometheus/metric_family.h"
#include "server/mutex.h"

namespace sparse_ffn {

// All functions may be called by any thread.
class SampledMetrics final : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override;

  void SetQueuedTokensSource(std::function<size_t()> source);
  void SetRequestsInFlightSource(std::function<size_t()> source);

 private:
  mutable Mutex mutex_;
  std::function<size_t()> queued_tokens_ ABSL_GUARDED_BY(mutex_);
  std::function<size_t()> requests_in_flight_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_METRICS_SAMPLED_H_
