// A request as the batcher takes it, and what it gives back.
#ifndef SPARSE_FFN_SERVER_FFN_TASK_H_
#define SPARSE_FFN_SERVER_FFN_TASK_H_

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/ffn_backend.h"
#include "kernels/matrix.h"

namespace sparse_ffn {

using SteadyTime = std::chrono::steady_clock::time_point;

// What a batch gave one of its tasks. Valid until Done returns.
struct FfnTaskResult {
  ConstMatrix output;                         // float32 [tokens, hidden]
  absl::Span<const uint32_t> active_neurons;  // [tokens]
  const FfnStats* batch = nullptr;  // Of the whole batch; see BatchRecord.
  // Of the batch; where it ran in passes, the most of any pass with a token of
  // the task.
  size_t batch_tokens = 0;
  uint32_t union_active_neurons = 0;
  uint64_t queue_ns = 0;  // From Submit until the batch closed.
};

// One request. Derive from it to be told the result; the derived object is the
// task's memory, so that queueing allocates nothing. From a Submit that
// returned OK until Done is called the fields must not change, and both the
// task and what it points to must stay.
class FfnTask {
 public:
  virtual ~FfnTask() = default;

  // Called exactly once after a Submit that returned OK, by the thread of a
  // lane, of a Submit of another task, or of the batcher's destructor. The
  // batcher does not touch the task after the call has begun, so Done may
  // delete or resubmit it. Must not block: the lane waits, or the other task
  // does.
  virtual void Done(const absl::StatusOr<FfnTaskResult>& result) = 0;

  int layer = 0;
  Execution execution = Execution::kAuto;
  // [tokens, hidden_size] of any type, may be unaligned; tokens >= 1.
  ConstMatrix hidden_states;
  SteadyTime deadline = SteadyTime::max();
  // Set by its owner, at any time and by any thread, when nobody waits for the
  // result any more. May be null.
  const std::atomic<bool>* cancelled = nullptr;

 private:
  friend class Batcher;
  friend class DroppedTasks;
  friend class TaskQueue;

  FfnTask* next_ = nullptr;
  SteadyTime submitted_;
  bool was_cancelled_ = false;  // Of a dropped task: cancelled or too late.
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_FFN_TASK_H_
