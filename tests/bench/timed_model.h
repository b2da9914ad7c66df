// A model's layers on the device, made for timing: as many as keep the L2 cache
// cold, with random weights and a gate that makes chosen neurons active.
#ifndef SPARSE_FFN_TESTS_BENCH_TIMED_MODEL_H_
#define SPARSE_FFN_TESTS_BENCH_TIMED_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/cublas.h"
#include "kernels/cuda/cuda_model.h"
#include "kernels/cuda/cuda_steps.h"
#include "kernels/matrix.h"
#include "tests/bench/bench_masks.h"
#include "tests/bench/bench_options.h"

namespace sparse_ffn::bench {

class TimedModel {
 public:
  // Layers 0 to options.layers - 1, for the most tokens in the options.
  static absl::StatusOr<std::unique_ptr<TimedModel>> New(
      const Preset& preset, DataType dtype, const Options& options);

  // Makes the neurons of `masks`, one mask a layer, active for the hidden
  // states that it leaves in the hidden_states() of both steps.
  absl::Status Prepare(int tokens, const Masks& masks);

  // Reads those back, to host memory of as many tokens.
  absl::Status ReadHiddenStates(Matrix states) const;

  // Device time of what `queue` puts on the stream for a layer: microseconds,
  // the median over replays for all layers in turn. `queue` is captured, so it
  // must not allocate.
  absl::StatusOr<double> TimeLayers(
      const std::function<absl::Status(const cuda::CudaLayer&)>& queue);

  // Bytes a second that a plain kernel reads of the three matrices.
  absl::StatusOr<double> ReadBandwidth();

  // Clock of a multiprocessor in MHz, measured while that kernel keeps the
  // device busy. `read_bandwidth` as just measured.
  absl::StatusOr<double> MeasureSmClock(double read_bandwidth);

  // As CudaSteps::DenseDown, over a down_proj in natural layout, [hidden,
  // intermediate]: with other values, since only the time counts.
  absl::Status NaturalDown(const cuda::CudaLayer& layer, int tokens) const;

  // Of the case prepared last, the one whose share of active neurons is nearest
  // to the mean.
  const cuda::CudaLayer& typical_layer() { return model_.layers[typical_]; }
  // Lanes of it may be made; not while they run are its forms changed.
  cuda::CudaModel& cuda_model() { return model_; }
  // For what the model's config says: deterministic or not.
  cuda::CudaSteps& steps() {
    return model_.config.deterministic ? *deterministic_steps_ : *steps_;
  }
  int layers() const { return static_cast<int>(model_.layers.size()); }
  size_t matrix_bytes() const { return n_ * hidden_ * 2; }

 private:
  TimedModel(const Preset& preset, DataType dtype);
  absl::Status Init(const Options& options);
  absl::Status AddLayer(int index);
  // Puts `rounds` of plain reads of all layers on the stream.
  absl::Status QueueReads(int rounds) const;
  absl::Status QueueRead(const cuda::CudaLayer& layer) const;
  // As CountCycles, after `rounds` of reads and during twice as many.
  absl::Status CountCyclesWhileReading(int rounds, uint64_t* passed);

  const size_t n_;
  const size_t hidden_;
  const bool half_;
  int typical_ = 0;
  cuda::Stream stream_;
  cuda::CudaModel model_;
  std::unique_ptr<cuda::CudaSteps> steps_;
  std::unique_ptr<cuda::CudaSteps> deterministic_steps_;
  std::optional<cuda::Cublas> cublas_;
  cuda::DeviceMemory natural_output_;  // float [tokens, hidden]
  cuda::DeviceMemory sink_;            // One int.
};

}  // namespace sparse_ffn::bench

#endif  // SPARSE_FFN_TESTS_BENCH_TIMED_MODEL_H_
