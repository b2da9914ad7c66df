// The tasks that wait in a batcher, and how batches are made of them. A list
// through the tasks themselves: nothing is allocated.
#ifndef SPARSE_FFN_SERVER_TASK_QUEUE_H_
#define SPARSE_FFN_SERVER_TASK_QUEUE_H_

#include <atomic>
#include <cstddef>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "kernels/ffn_backend.h"
#include "server/ffn_task.h"

namespace sparse_ffn {

// OK where somebody waits for the task, else DEADLINE_EXCEEDED or CANCELLED.
absl::Status CheckWanted(const FfnTask& task, SteadyTime now);

// Tasks that nobody waits for any more, until they are told so.
class DroppedTasks {
 public:
  bool empty() const { return first_ == nullptr; }

  // Whether the task is one; takes it then.
  bool Take(FfnTask* task, SteadyTime now);

  // Calls Done of all.
  void Finish();

 private:
  FfnTask* first_ = nullptr;
};

// Tasks that run together.
struct TaskBatch {
  int layer = 0;
  Execution execution = Execution::kAuto;
  size_t tokens = 0;
  std::vector<FfnTask*> tasks;
  DroppedTasks dropped;  // What was met on the way.
};

// One thread at a time, but for tokens().
class TaskQueue {
 public:
  bool empty() const { return first_ == nullptr; }
  // Of all tasks.
  size_t tokens() const { return tokens_.load(std::memory_order_relaxed); }

  void Push(FfnTask* task);

  // Takes the oldest task and those of its layer and execution that still fit,
  // oldest first, into an empty batch.
  void TakeBatch(size_t max_tokens, SteadyTime now, TaskBatch* batch);

  // Takes those that nobody waits for any more.
  void TakeDropped(SteadyTime now, DroppedTasks* dropped);

  // All of them, for FinishAll().
  FfnTask* TakeAll();

  // Calls Done of them all.
  static void FinishAll(FfnTask* first, const absl::Status& status);

 private:
  void SetTokens(size_t tokens) {
    tokens_.store(tokens, std::memory_order_release);
  }

  FfnTask* first_ = nullptr;  // The oldest.
  FfnTask** end_ = &first_;   // next_ of the last one.
  std::atomic<size_t> tokens_{0};
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_TASK_QUEUE_H_
