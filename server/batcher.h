// The queue between the calls and the hardware. Whatever was queued for a layer
// while a lane was busy runs as one batch as soon as a lane is free; there is
// no timer, so a request that comes to an idle server starts at once.
#ifndef SPARSE_FFN_SERVER_BATCHER_H_
#define SPARSE_FFN_SERVER_BATCHER_H_

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
#include "server/ffn_task.h"
#include "server/mutex.h"
#include "server/task_queue.h"

namespace sparse_ffn {

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
  // The least time between two looks through a full queue for tasks that nobody
  // waits for any more.
  static constexpr std::chrono::milliseconds kClearEvery{1};

  // Starts one thread a lane. At least one lane; all of the same backend.
  Batcher(BatcherOptions options, std::vector<std::unique_ptr<FfnLane>> lanes);
  // Waits for the batches that run; tasks still queued are Done with
  // UNAVAILABLE.
  ~Batcher();
  Batcher(const Batcher&) = delete;
  Batcher& operator=(const Batcher&) = delete;

  // Never blocks; takes the task only if it returns OK, and then calls
  // task->Done with the result or one of the errors below. May call Done of
  // other tasks, late or cancelled, before it returns: the caller holds no lock
  // that they take.
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
  size_t queued_tokens() const ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return queue_.tokens();
  }

 private:
  struct Lane;

  absl::Status Admit(const FfnTask& task, SteadyTime now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunLane(Lane* lane);
  void EndRun();
  bool WaitForBatch(Lane* lane);
  void Spin() const;
  void RunBatch(Lane* lane);
  void GatherRows(Lane* lane, Matrix input);
  void FinishBatch(Lane* lane, const absl::StatusOr<FfnResult>& result);
  void DeliverResult(Lane* lane, const FfnResult& result);
  void Fail(const absl::Status& status);

  const BatcherOptions options_;
  std::vector<std::unique_ptr<Lane>> lanes_;

  Mutex mutex_;
  CondVar work_;
  CondVar idle_;
  TaskQueue queue_ ABSL_GUARDED_BY(mutex_);
  size_t sleeping_ ABSL_GUARDED_BY(mutex_) = 0;
  // Batches, and Submits that finish other tasks.
  size_t running_ ABSL_GUARDED_BY(mutex_) = 0;
  SteadyTime next_clear_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);

  std::vector<std::thread> threads_;
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_BATCHER_H_
