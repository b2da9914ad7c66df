// Which batches to time so that ChoosePath has a table, and what is made of the
// times. Knows no device: the batches run through a function.
#ifndef SPARSE_FFN_KERNELS_CUDA_MEASURE_PATHS_H_
#define SPARSE_FFN_KERNELS_CUDA_MEASURE_PATHS_H_

#include <cstddef>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/ffn_backend.h"

namespace sparse_ffn::cuda {

struct TimedBatch {
  double microseconds = 0;
  float union_density = 0;
};

// Runs a batch of `tokens` random hidden states through the layer that is
// `layer`th, from 0, on `path`. A neuron is active from a score of `threshold`
// on, or above 0 where that is 0.
using TimeBatch = std::function<absl::StatusOr<TimedBatch>(
    size_t layer, size_t tokens, FfnPath path, float threshold)>;

struct MeasurePlan {
  size_t layers = 0;  // >= 1
  size_t hidden_size = 0;
  size_t max_batch_tokens = 0;
  std::function<bool(size_t tokens)> fused;  // Whether that path is there.
  double seconds = 0;  // Once the batches have taken so long, it ends.
};

// Powers of two up to `max_batch_tokens` and that number itself. Where the
// sparse steps lose their batch form and where the fused form is no longer one
// kernel, also the first number beyond: there is a leap, over which nothing can
// be interpolated. Passes leap again after each further 32; that is left to
// interpolation, since dense is faster there but for very sparse layers.
// Ascending.
std::vector<size_t> TokensToMeasure(size_t max_batch_tokens,
                                    size_t hidden_size);

// Times the paths for each of TokensToMeasure: dense, and the sparse ones
// (where fused batches run in passes, fused alone) at three densities, which
// the threshold makes: none, the most that these hidden states reach, and half
// of that. Each time is the median of batches that took turns with those of the
// other cases and went from layer to layer, so that no weights are left in a
// cache. A number of tokens is measured on all paths or on none: when the time
// is up, and where the hidden states reach too few neurons to go on from to
// full density. `progress` is called after each.
absl::StatusOr<std::vector<PathCost>> MeasurePaths(
    const MeasurePlan& plan, const TimeBatch& time,
    const std::function<void()>& progress);

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_MEASURE_PATHS_H_
