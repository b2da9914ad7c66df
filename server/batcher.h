// The queue between the calls and the hardware. Whatever was queued for a layer
// while a lane was busy runs as one batch as soon as a lane is free; there is
// no timer, so a request that comes to an idle server starts at once.
#ifndef SPARSE_FFN_SERVER_BATCHER_H_
#define SPARSE_FFN_SERVER_BATCHER_H_

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/ffn_backend.h"
#include "kernels/matrix.h"
#include "server/mutex.h"

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

  // Called exactly once after a Submit that returned OK, by a lane's thread, or
  // where nobody waits for it any more by one that submits another task, or
  // where it is still queued then by the destructor's. The batcher does not
  // touch the task after the call has begun, so Done may delete or resubmit it.
  // Must not block: the lane waits.
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

  FfnTask* next_ = nullptr;
  SteadyTime submitted_;
  bool was_cancelled_ = false;  // Of a dropped task: cancelled or too late.
};

// One batch that ran without error.
struct BatchRecord {
  int layer = 0;
  size_t tokens = 0;
  // copy_in_ns and compute_ns include the gathering of the rows.
  FfnStats stats;
  absl::Span<const uint64_t> queue_ns;  // One a task.
};

struct BatcherOptions {
  // Most tokens of one batch; not more than the lanes were made for.
  size_t max_batch_tokens = 256;
  // Most tokens that wait; at least max_batch_tokens.
  size_t max_queued_tokens = 4096;
  // How long a lane's thread looks for work before it sleeps. Saves the wake-up
  // of a sleeping thread, costs a busy processor for that long after each
  // batch.
  std::chrono::microseconds spin{0};
  // Any thread may call it.
  std::function<SteadyTime()> now = std::chrono::steady_clock::now;
  // Called by the lane's thread after Done of every task of a batch; may be
  // empty. The spans are valid during the call.
  std::function<void(const BatchRecord&)> on_batch;
  // Called once, by a lane's thread, when the device failed; may be empty.
  std::function<void(const absl::Status&)> on_failure;
};

// All public functions may be called by any thread.
class Batcher {
 public:
  // How often, at most, a full queue is gone through for tasks that nobody
  // waits for any more. That takes microseconds.
  static constexpr std::chrono::milliseconds kClearEvery{1};

  // Starts one thread a lane. At least one lane; all of the same backend.
  Batcher(BatcherOptions options, std::vector<std::unique_ptr<FfnLane>> lanes);
  // Waits for the batches that run; tasks still queued are Done with
  // UNAVAILABLE.
  ~Batcher();
  Batcher(const Batcher&) = delete;
  Batcher& operator=(const Batcher&) = delete;

  // Never blocks; takes the task only if it returns OK, and then calls
  // task->Done with the result or one of the errors below.
  //   INVALID_ARGUMENT    no tokens, or more than max_batch_tokens
  //   RESOURCE_EXHAUSTED  the queue is full
  //   UNAVAILABLE         draining, or the device failed
  //   DEADLINE_EXCEEDED, CANCELLED  already
  // Later, through Done: DEADLINE_EXCEEDED and CANCELLED (both are looked at
  // when the batch closes, again just before its launch, and where the queue is
  // full, so that those leave their places to others), INTERNAL for the
  // tasks of a batch on which the device failed and UNAVAILABLE for those
  // queued behind it.
  absl::Status Submit(FfnTask* task);

  // From now on Submit returns UNAVAILABLE; what was accepted is still done.
  void Drain();

  // Waits until nothing is queued and no batch runs, every Done having
  // returned. False if that did not come before `deadline`, a time of the real
  // clock.
  bool WaitIdle(SteadyTime deadline);

  // Tokens that wait, without those of running batches.
  size_t queued_tokens() const {
    return queued_tokens_.load(std::memory_order_relaxed);
  }

 private:
  struct Lane;

  absl::Status Admit(const FfnTask& task, SteadyTime now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  FfnTask* ClearQueue(SteadyTime now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunLane(Lane* lane);
  void EndRun();
  bool WaitForBatch(Lane* lane);
  void Spin() const;
  void CloseBatch(Lane* lane) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunBatch(Lane* lane);
  void GatherRows(Lane* lane, Matrix input);
  void FinishBatch(Lane* lane, const absl::StatusOr<FfnResult>& result);
  void DeliverResult(Lane* lane, const FfnResult& result);
  // Puts it on a list for FinishDropped().
  static void Drop(FfnTask* task, SteadyTime now, FfnTask** dropped);
  static void FinishDropped(FfnTask* dropped);
  void Fail(const absl::Status& status);
  FfnTask* TakeQueue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void DropAll(FfnTask* head, const absl::Status& status);

  const BatcherOptions options_;
  std::vector<std::unique_ptr<Lane>> lanes_;

  Mutex mutex_;
  CondVar work_;
  CondVar idle_;
  FfnTask* head_ ABSL_GUARDED_BY(mutex_) = nullptr;  // Oldest first.
  FfnTask** tail_ ABSL_GUARDED_BY(mutex_) = &head_;  // The last one's next_.
  size_t sleeping_ ABSL_GUARDED_BY(mutex_) = 0;
  // Batches, and Submits that finish other tasks.
  size_t running_ ABSL_GUARDED_BY(mutex_) = 0;
  SteadyTime next_clear_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  std::atomic<size_t> queued_tokens_{0};  // Written with mutex_ held.

  std::vector<std::thread> threads_;
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_BATCHER_H_
