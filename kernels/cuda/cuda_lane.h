// One batch in flight on a CUDA device.
#ifndef SPARSE_FFN_KERNELS_CUDA_CUDA_LANE_H_
#define SPARSE_FFN_KERNELS_CUDA_CUDA_LANE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/cuda/batch_forecast.h"
#include "kernels/cuda/batch_passes.h"
#include "kernels/cuda/cuda_handles.h"
#include "kernels/cuda/cuda_model.h"
#include "kernels/cuda/cuda_steps.h"
#include "kernels/cuda/launch_words.h"
#include "kernels/ffn_backend.h"

namespace sparse_ffn::cuda {

class CudaLane : public FfnLane {
 public:
  // Waits for what the device still does.
  ~CudaLane() override;
  // `model` must outlive the lane.
  static absl::StatusOr<std::unique_ptr<FfnLane>> New(const CudaModel& model);

  // Whether a batch of `tokens` that need not be dense may run fused.
  static bool MayFuse(const CudaModel& model, size_t tokens);

  Matrix input(size_t tokens) override;
  absl::StatusOr<FfnResult> Run(int layer, size_t tokens,
                                Execution execution) override;

 private:
  // Points of time on the device, in order; one event each. Events keep kernels
  // from overlapping, so only the first of every kTimedEvery batches has them,
  // and none in a deterministic backend.
  enum Mark { kStart, kCopiedIn, kGateDone, kUpDone, kDownDone, kCopiedOut };
  static constexpr int kMarks = kCopiedOut + 1;
  static constexpr uint64_t kTimedEvery = 16;

  // The launches, or the one, that wait for their batch.
  struct Ahead {
    BatchForecast::Batch batch;
    int number;
    size_t counter_offset;
  };

  explicit CudaLane(const CudaModel& model);
  absl::Status Init();
  // As far as that goes: lanes do without.
  void RecordGraphs();
  // What BatchForecast may foresee.
  static std::vector<BatchForecast::Batch> Foreseeable(const CudaModel& model);
  // Whether batch number `index` of the lane is timed.
  bool IsTimed(uint64_t index) const {
    return !model_.config.deterministic && index % kTimedEvery == 0;
  }
  // Whether that one, of `tokens`, runs in steps where it would run fused,
  // which has none to time. Not instead of passes: it would take several times
  // as long.
  bool StepsInstead(uint64_t index, size_t tokens) const {
    return IsTimed(index) && model_.sparse_form == SparseForm::kAuto &&
           tokens <= CudaSteps::PassTokens(model_);
  }
  // The batch at hand, until its result is in host memory.
  absl::Status Compute(const CudaLayer& layer, BatchForecast::Batch batch,
                       FfnPath path);
  // The result of a launch that was told to run. False: it had left before.
  absl::StatusOr<bool> AwaitAhead(const Ahead& ahead);
  // For the batch that is foreseen, if there is one and the lane may.
  absl::Status LaunchAhead();
  // Tells the launch that waits to leave, if there is one.
  void DismissAhead();
  // Queues a whole batch. (cuda_lane_queue.cc, like all that this needs.) After
  // an error nobody is told that anything is done.
  absl::Status Queue(const CudaLayer& layer, int tokens, FfnPath path);
  absl::Status QueueSteps(const CudaLayer& layer, int tokens, FfnPath path);
  // All steps in one kernel, by one call where that was recorded.
  absl::Status QueueFused(const CudaLayer& layer, int tokens);
  absl::Status QueueFusedLaunches(const CudaLayer& layer, int tokens,
                                  const AheadParams& ahead = {});
  absl::Status QueueFusedBatch(const CudaLayer& layer, int tokens,
                               const AheadParams& ahead = {});
  // More tokens than run at once: counters go to the host, pass by pass, and
  // the output when all have run.
  absl::Status QueuePasses(const CudaLayer& layer, int tokens);
  // Of a fused call for rows `first` to `first + tokens` of the input.
  CudaSteps::FusedBuffers BuffersFor(size_t first, int tokens,
                                     const CudaSteps::ResultBuffers& result);
  // Whether a batch runs in passes.
  bool HasPasses(size_t tokens, FfnPath path) const {
    return path == FfnPath::kFused && passes_.Count(tokens) > 1;
  }
  // Whether the last kernel writes the result to the host itself, and no copy
  // follows.
  bool IsDirect(size_t tokens, FfnPath path) const {
    return path == FfnPath::kFused && !HasPasses(tokens, path) &&
           (steps_->FusesAllSteps(static_cast<int>(tokens)) ||
            CudaSteps::UsesOrderedBatch(model_));
  }
  // Makes Await wait for the word of a launch that is still to come.
  void ExpectAnnouncement();
  // Until the result of Queue is in host memory.
  absl::Status Await();
  // Until the launch known by `number` is over: whether it ran.
  absl::StatusOr<bool> AwaitDone(int number) const {
    return words_->Await(number, ahead_.has_value() ? ahead_->number : 0,
                         stream_.get());
  }
  absl::Status CopyIn(int tokens, const AheadParams& ahead = {});
  absl::Status CopyOut(int tokens, int ahead_number = 0);
  // Between page-locked memory and the device, by a kernel or else by the copy
  // engine. Sizes are rounded up to 16 bytes; all our buffers are multiples of
  // that.
  absl::Status Copy(SmallCopyParams params, size_t bytes, bool by_kernel,
                    const char* what);
  absl::Status Record(Mark mark);
  uint64_t Nanoseconds(Mark from, Mark to) const;
  // Where it goes if IsDirect.
  CudaSteps::ResultBuffers DirectResult() const;
  float* pinned_output() const;
  // The union's count, then each token's: as it lies in pinned_result_.
  int* pinned_counters(size_t offset) const;
  int* pass_counters() const {
    return reinterpret_cast<int*>(pinned_pass_counters_.get());
  }
  // Where in pinned_result_ the counters of the batch queued last come to
  // stand.
  size_t CounterOffset(size_t tokens, FfnPath path) const {
    return IsDirect(tokens, path) ? 0 : steps_->counter_offset();
  }
  FfnResult Result(size_t tokens, FfnPath path);

  const CudaModel& model_;
  Stream stream_;
  std::array<Event, kMarks> events_;
  PinnedMemory pinned_input_;
  PinnedMemory pinned_result_;
  PinnedMemory pinned_pass_counters_;  // As BatchPasses has it.
  std::optional<LaunchWords> words_;
  std::unique_ptr<CudaSteps> steps_;
  // QueueFusedLaunches by layer and tokens, with the model's threshold and form
  // when the lane was made. About 0.1 MB of device memory each.
  std::map<std::pair<const CudaLayer*, int>, Graph> graphs_;
  uint64_t batches_ = 0;
  BatchPasses passes_;
  BatchForecast forecast_;
  std::optional<Ahead> ahead_;
  int ahead_number_ = 1;  // Of the last launch ahead.
  // Of the batch in flight:
  size_t counter_offset_ = 0;
  bool timed_ = false;
  bool launched_ahead_ = false;
  bool announces_ = false;  // Its last launch says that it is done.
};

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_CUDA_LANE_H_
