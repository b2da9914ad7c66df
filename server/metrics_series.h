// What metrics.cc makes and metrics_record.cc adds to.
#ifndef SPARSE_FFN_SERVER_METRICS_SERIES_H_
#define SPARSE_FFN_SERVER_METRICS_SERIES_H_

#include <vector>

#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "server/metrics.h"
#include "server/mutex.h"

namespace sparse_ffn {

// Upper bounds of the buckets of a token's sparsity.
const std::vector<double>& SparsityBuckets();

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

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_METRICS_SERIES_H_
