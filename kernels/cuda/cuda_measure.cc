#include "kernels/cuda/cuda_measure.h"

#include <chrono>
#include <memory>
#include <random>
#include <utility>

#include "kernels/cuda/cuda_lane.h"
#include "kernels/cuda/measure_paths.h"
#include "kernels/matrix.h"

namespace sparse_ffn::cuda {
namespace {

// Views of the same weights, with density estimates of their own and no costs;
// what is changed here reaches no other lane.
void FillScratch(const CudaModel& model, CudaModel* scratch) {
  scratch->config = model.config;
  scratch->config.launch_ahead_us = 0;  // Calls that nobody foresees.
  scratch->element = model.element;
  scratch->device = model.device;
  scratch->device_traits = model.device_traits;
  // Lanes then record nothing, so that form and threshold may change.
  scratch->sparse_form = SparseForm::kSteps;
  for (const auto& [number, layer] : model.layers) {
    CudaLayer& view = scratch->layers[number];
    view.gate_proj = layer.gate_proj;
    view.up_proj = layer.up_proj;
    view.down_proj = layer.down_proj;
  }
}

void Settle() {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::microseconds(20);
  while (Clock::now() < end) {
  }
}

void FillRandom(Matrix input) {
  std::minstd_rand random;  // The same states in every run.
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> row(input.cols);
  for (size_t i = 0; i < input.rows; ++i) {
    for (float& value : row) value = uniform(random);
    Convert(ConstMatrix{row.data(), 1, row.size(), DataType::kFloat32},
            Matrix{input.row(i), 1, input.cols, input.dtype});
  }
}

// Runs batches over a scratch model; one thread.
class Timer {
 public:
  explicit Timer(const CudaModel& model) {
    FillScratch(model, &scratch_);
    for (const auto& [number, layer] : scratch_.layers) {
      layers_.push_back(number);
    }
  }

  absl::Status Init() {
    auto lane = CudaLane::New(scratch_);
    if (!lane.ok()) return lane.status();
    lane_ = *std::move(lane);
    FillRandom(lane_->input(scratch_.config.max_batch_tokens));
    return absl::OkStatus();
  }

  absl::StatusOr<TimedBatch> Time(size_t layer, size_t tokens, FfnPath path,
                                  float threshold);

 private:
  CudaModel scratch_;
  std::vector<int> layers_;
  std::unique_ptr<FfnLane> lane_;
};

absl::StatusOr<TimedBatch> Timer::Time(size_t layer, size_t tokens,
                                       FfnPath path, float threshold) {
  // The lane reads both while it queues a batch.
  scratch_.config.threshold = threshold;
  scratch_.sparse_form =
      path == FfnPath::kFused ? SparseForm::kFused : SparseForm::kSteps;
  const Execution execution =
      path == FfnPath::kDense ? Execution::kDense : Execution::kSparse;
  absl::StatusOr<FfnResult> result =
      RunAsServed(lane_.get(), layers_[layer], tokens, execution);
  // The events of a batch whose steps are timed cost time; the next has none.
  if (result.ok() && result->stats.copy_in_ns != 0) {
    result = RunAsServed(lane_.get(), layers_[layer], tokens, execution);
  }
  if (!result.ok()) return result.status();
  TimedBatch batch;
  batch.microseconds = static_cast<double>(result->stats.compute_ns) / 1e3;
  batch.union_density = static_cast<float>(result->stats.union_active_neurons) /
                        static_cast<float>(scratch_.config.intermediate_size);
  return batch;
}

}  // namespace

absl::StatusOr<FfnResult> RunAsServed(FfnLane* lane, int layer, size_t tokens,
                                      Execution execution) {
  constexpr size_t kLine = 64;  // Of the processor's caches.
  const Matrix input = lane->input(tokens);
  auto* states = static_cast<volatile std::byte*>(input.data);
  for (size_t i = 0; i < input.bytes(); i += kLine) states[i] = states[i];
  Settle();
  absl::StatusOr<FfnResult> result = lane->Run(layer, tokens, execution);
  if (!result.ok()) return result;
  const auto* output =
      static_cast<const volatile std::byte*>(result->output.data);
  for (size_t i = 0; i < result->output.bytes(); i += kLine) {
    static_cast<void>(output[i]);
  }
  return result;
}

absl::StatusOr<std::vector<PathCost>> MeasureCudaPaths(
    const CudaModel& model, double seconds,
    const std::function<void()>& progress) {
  if (model.layers.empty()) return std::vector<PathCost>();
  Timer timer(model);
  absl::Status status = timer.Init();
  if (!status.ok()) return status;
  MeasurePlan plan;
  plan.layers = model.layers.size();
  plan.hidden_size = model.config.hidden_size;
  plan.max_batch_tokens = model.config.max_batch_tokens;
  plan.fused = [&model](size_t tokens) {
    return CudaLane::MayFuse(model, tokens);
  };
  plan.seconds = seconds;
  return MeasurePaths(
      plan,
      [&timer](size_t layer, size_t tokens, FfnPath path, float threshold) {
        return timer.Time(layer, tokens, path, threshold);
      },
      progress);
}

}  // namespace sparse_ffn::cuda
