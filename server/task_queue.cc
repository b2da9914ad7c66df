#include "server/task_queue.h"

#include "absl/status/statusor.h"

namespace sparse_ffn {
namespace {

bool Cancelled(const FfnTask& task) {
  return task.cancelled != nullptr &&
         task.cancelled->load(std::memory_order_acquire);
}

bool Late(const FfnTask& task, SteadyTime now) { return now >= task.deadline; }

absl::Status CancelledStatus() {
  return absl::CancelledError(
      "the caller cancelled before the batch was computed");
}

absl::Status LateStatus() {
  return absl::DeadlineExceededError(
      "the deadline passed before the batch was computed");
}

}  // namespace

absl::Status CheckWanted(const FfnTask& task, SteadyTime now) {
  // A caller whose deadline passed cancels too: late comes first.
  if (Late(task, now)) return LateStatus();
  if (Cancelled(task)) return CancelledStatus();
  return absl::OkStatus();
}

bool DroppedTasks::Take(FfnTask* task, SteadyTime now) {
  const bool late = Late(*task, now);
  if (!late && !Cancelled(*task)) return false;
  task->was_cancelled_ = !late;
  task->next_ = first_;
  first_ = task;
  return true;
}

void DroppedTasks::Finish() {
  FfnTask* task = std::exchange(first_, nullptr);
  while (task != nullptr) {
    FfnTask* next = task->next_;
    task->Done(task->was_cancelled_ ? CancelledStatus() : LateStatus());
    task = next;
  }
}

void TaskQueue::Push(FfnTask* task) {
  task->next_ = nullptr;
  *end_ = task;
  end_ = &task->next_;
  SetTokens(tokens() + task->hidden_states.rows);
}

void TaskQueue::TakeBatch(size_t max_tokens, SteadyTime now, TaskBatch* batch) {
  size_t left = tokens();
  FfnTask** link = &first_;
  while (*link != nullptr && batch->tokens < max_tokens) {
    FfnTask* task = *link;
    FfnTask* next = task->next_;
    const size_t rows = task->hidden_states.rows;
    if (batch->dropped.Take(task, now)) {
      *link = next;
      left -= rows;
      continue;
    }
    const bool fits =
        batch->tasks.empty() ||
        (task->layer == batch->layer && task->execution == batch->execution &&
         batch->tokens + rows <= max_tokens);
    if (!fits) {
      link = &task->next_;
      continue;
    }
    *link = next;
    left -= rows;
    batch->layer = task->layer;
    batch->execution = task->execution;
    batch->tasks.push_back(task);
    batch->tokens += rows;
  }
  if (*link == nullptr) end_ = link;
  SetTokens(left);
}

void TaskQueue::TakeDropped(SteadyTime now, DroppedTasks* dropped) {
  size_t left = tokens();
  FfnTask** link = &first_;
  while (*link != nullptr) {
    FfnTask* task = *link;
    FfnTask* next = task->next_;
    const size_t rows = task->hidden_states.rows;
    if (dropped->Take(task, now)) {
      *link = next;
      left -= rows;
    } else {
      link = &task->next_;
    }
  }
  end_ = link;
  SetTokens(left);
}

FfnTask* TaskQueue::TakeAll() {
  FfnTask* first = std::exchange(first_, nullptr);
  end_ = &first_;
  SetTokens(0);
  return first;
}

void TaskQueue::FinishAll(FfnTask* first, const absl::Status& status) {
  const absl::StatusOr<FfnTaskResult> error = status;
  while (first != nullptr) {
    FfnTask* next = first->next_;
    first->Done(error);
    first = next;
  }
}

}  // namespace sparse_ffn
