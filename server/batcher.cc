#include "server/batcher.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

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

uint64_t Nanoseconds(std::chrono::steady_clock::duration duration) {
  const auto count =
      std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count();
  return count > 0 ? static_cast<uint64_t>(count) : 0;
}

void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// The most, of tokens and of neurons, that a pass has with one of rows `first`
// to `first + rows` of a batch of `tokens`.
FfnPass LargestPass(const FfnStats& stats, size_t tokens, size_t first,
                    size_t rows) {
  if (stats.passes.empty()) {
    return {static_cast<uint32_t>(tokens), stats.union_active_neurons};
  }
  FfnPass most;
  size_t begin = 0;
  for (const FfnPass& pass : stats.passes) {
    const size_t end = begin + pass.tokens;
    if (begin < first + rows && first < end) {
      most.tokens = std::max(most.tokens, pass.tokens);
      most.union_active_neurons =
          std::max(most.union_active_neurons, pass.union_active_neurons);
    }
    begin = end;
  }
  return most;
}

}  // namespace

// Of one lane's thread alone; sized at start for the largest batch.
struct Batcher::Lane {
  std::unique_ptr<FfnLane> ffn;
  int layer = 0;
  Execution execution = Execution::kAuto;
  size_t tokens = 0;
  SteadyTime closed_at;
  std::vector<FfnTask*> tasks;
  std::vector<uint64_t> queue_ns;
  FfnTask* dropped = nullptr;
};

Batcher::Batcher(BatcherOptions options,
                 std::vector<std::unique_ptr<FfnLane>> lanes)
    : options_(std::move(options)) {
  for (std::unique_ptr<FfnLane>& ffn : lanes) {
    auto lane = std::make_unique<Lane>();
    lane->ffn = std::move(ffn);
    lane->tasks.reserve(options_.max_batch_tokens);
    lane->queue_ns.reserve(options_.max_batch_tokens);
    lanes_.push_back(std::move(lane));
  }
  for (const std::unique_ptr<Lane>& lane : lanes_) {
    threads_.emplace_back([this, running = lane.get()] { RunLane(running); });
  }
}

Batcher::~Batcher() {
  FfnTask* left = nullptr;
  {
    MutexLock lock(&mutex_);
    draining_ = true;
    stopping_ = true;
    left = TakeQueue();
    work_.NotifyAll();
  }
  DropAll(left, absl::UnavailableError(
                    "the server stopped before the request was computed"));
  for (std::thread& thread : threads_) thread.join();
}

absl::Status Batcher::Submit(FfnTask* task) {
  const SteadyTime now = options_.now();
  absl::Status admitted;
  bool wake = false;
  FfnTask* dropped = nullptr;
  {
    MutexLock lock(&mutex_);
    admitted = Admit(*task, now);
    if (absl::IsResourceExhausted(admitted) && now >= next_clear_) {
      next_clear_ = now + kClearEvery;
      dropped = ClearQueue(now);
      admitted = Admit(*task, now);
    }
    if (admitted.ok()) {
      task->submitted_ = now;
      task->next_ = nullptr;
      *tail_ = task;
      tail_ = &task->next_;
      queued_tokens_.store(queued_tokens() + task->hidden_states.rows,
                           std::memory_order_release);
      wake = sleeping_ > 0;
    }
    if (dropped != nullptr) ++running_;  // For WaitIdle.
  }
  if (wake) work_.NotifyOne();
  if (dropped != nullptr) {
    FinishDropped(dropped);
    EndRun();
  }
  return admitted;
}

absl::Status Batcher::Admit(const FfnTask& task, SteadyTime now) {
  const size_t tokens = task.hidden_states.rows;
  if (tokens == 0 || tokens > options_.max_batch_tokens) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tokens is ", tokens, "; expected 1 to ", options_.max_batch_tokens));
  }
  if (!failure_.ok()) return failure_;
  if (draining_) {
    return absl::UnavailableError(
        "the server is draining; retry on another replica");
  }
  if (Late(task, now)) return LateStatus();
  if (Cancelled(task)) return CancelledStatus();
  if (queued_tokens() + tokens > options_.max_queued_tokens) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the queue is full: ", queued_tokens(), " of at most ",
                     options_.max_queued_tokens, " tokens wait and ", tokens,
                     " more came; back off and retry"));
  }
  return absl::OkStatus();
}

void Batcher::Drain() {
  MutexLock lock(&mutex_);
  draining_ = true;
}

bool Batcher::WaitIdle(SteadyTime deadline) {
  MutexLock lock(&mutex_);
  while (head_ != nullptr || running_ > 0) {
    if (!idle_.WaitUntil(&mutex_, deadline)) {
      return head_ == nullptr && running_ == 0;
    }
  }
  return true;
}

void Batcher::RunLane(Lane* lane) {
  while (WaitForBatch(lane)) {
    RunBatch(lane);
    EndRun();
  }
}

void Batcher::EndRun() {
  MutexLock lock(&mutex_);
  --running_;
  if (running_ == 0 && head_ == nullptr) idle_.NotifyAll();
}

// False when the batcher stops.
bool Batcher::WaitForBatch(Lane* lane) {
  if (options_.spin.count() > 0 && queued_tokens() == 0) Spin();
  MutexLock lock(&mutex_);
  while (head_ == nullptr && !stopping_) {
    ++sleeping_;
    work_.Wait(&mutex_);
    --sleeping_;
  }
  if (stopping_) return false;
  CloseBatch(lane);
  ++running_;
  return true;
}

void Batcher::Spin() const {
  const auto until = std::chrono::steady_clock::now() + options_.spin;
  constexpr int kPausesPerLook = 16;
  while (queued_tokens() == 0 && std::chrono::steady_clock::now() < until) {
    for (int i = 0; i < kPausesPerLook; ++i) Pause();
  }
}

// Takes out the tasks that are late or cancelled, and returns them.
FfnTask* Batcher::ClearQueue(SteadyTime now) {
  FfnTask* dropped = nullptr;
  size_t left = queued_tokens();
  FfnTask** link = &head_;
  while (*link != nullptr) {
    FfnTask* task = *link;
    if (!Late(*task, now) && !Cancelled(*task)) {
      link = &task->next_;
      continue;
    }
    *link = task->next_;
    left -= task->hidden_states.rows;
    Drop(task, now, &dropped);
  }
  tail_ = link;
  queued_tokens_.store(left, std::memory_order_release);
  return dropped;
}

void Batcher::CloseBatch(Lane* lane) {
  lane->tasks.clear();
  lane->tokens = 0;
  lane->closed_at = options_.now();
  size_t left = queued_tokens();
  FfnTask** link = &head_;
  while (*link != nullptr && lane->tokens < options_.max_batch_tokens) {
    FfnTask* task = *link;
    const size_t rows = task->hidden_states.rows;
    const bool drop = Late(*task, lane->closed_at) || Cancelled(*task);
    const bool first = lane->tasks.empty();
    const bool fits =
        first ||
        (task->layer == lane->layer && task->execution == lane->execution &&
         lane->tokens + rows <= options_.max_batch_tokens);
    if (!drop && !fits) {
      link = &task->next_;
      continue;
    }
    *link = task->next_;
    left -= rows;
    if (drop) {
      Drop(task, lane->closed_at, &lane->dropped);
      continue;
    }
    lane->layer = task->layer;
    lane->execution = task->execution;
    lane->tasks.push_back(task);
    lane->tokens += rows;
  }
  if (*link == nullptr) tail_ = link;
  queued_tokens_.store(left, std::memory_order_release);
}

void Batcher::RunBatch(Lane* lane) {
  if (!lane->tasks.empty()) {
    const auto started = std::chrono::steady_clock::now();
    GatherRows(lane, lane->ffn->input(lane->tokens));
    const uint64_t gather_ns =
        Nanoseconds(std::chrono::steady_clock::now() - started);
    if (!lane->tasks.empty()) {
      absl::StatusOr<FfnResult> result =
          lane->ffn->Run(lane->layer, lane->tokens, lane->execution);
      if (result.ok()) {
        result->stats.copy_in_ns += gather_ns;
        result->stats.compute_ns += gather_ns;
      }
      FinishBatch(lane, result);
    }
  }
  FinishDropped(std::exchange(lane->dropped, nullptr));
}

// Looks at deadline and cancellation once more, task by task, right before the
// rows are copied: what is left is launched at once.
void Batcher::GatherRows(Lane* lane, Matrix input) {
  const SteadyTime now = options_.now();
  size_t kept = 0;
  size_t row = 0;
  for (FfnTask* task : lane->tasks) {
    if (Late(*task, now) || Cancelled(*task)) {
      Drop(task, now, &lane->dropped);
      continue;
    }
    const ConstMatrix& rows = task->hidden_states;
    Convert(rows, Matrix{input.row(row), rows.rows, rows.cols, input.dtype});
    row += rows.rows;
    lane->tasks[kept++] = task;
  }
  lane->tasks.resize(kept);
  lane->tokens = row;
}

void Batcher::FinishBatch(Lane* lane, const absl::StatusOr<FfnResult>& result) {
  if (result.ok()) {
    DeliverResult(lane, *result);
    return;
  }
  const absl::StatusOr<FfnTaskResult> error = result.status();
  // Before the replies: whoever reads one and comes again finds the new state.
  if (absl::IsInternal(result.status())) Fail(result.status());
  for (FfnTask* task : lane->tasks) task->Done(error);
}

void Batcher::DeliverResult(Lane* lane, const FfnResult& result) {
  lane->queue_ns.clear();
  absl::StatusOr<FfnTaskResult> part = FfnTaskResult{};
  part->batch = &result.stats;
  size_t row = 0;
  for (FfnTask* task : lane->tasks) {
    const size_t tokens = task->hidden_states.rows;
    part->queue_ns = Nanoseconds(lane->closed_at - task->submitted_);
    part->output = ConstMatrix{result.output.row(row), tokens,
                               result.output.cols, result.output.dtype};
    part->active_neurons = result.stats.active_neurons.subspan(row, tokens);
    const FfnPass most = LargestPass(result.stats, lane->tokens, row, tokens);
    part->batch_tokens = most.tokens;
    part->union_active_neurons = most.union_active_neurons;
    lane->queue_ns.push_back(part->queue_ns);
    row += tokens;
    task->Done(part);
  }
  if (!options_.on_batch) return;
  options_.on_batch(
      BatchRecord{lane->layer, lane->tokens, result.stats, lane->queue_ns});
}

void Batcher::Drop(FfnTask* task, SteadyTime now, FfnTask** dropped) {
  // A caller whose deadline passed cancels too: late comes first.
  task->was_cancelled_ = !Late(*task, now);
  task->next_ = *dropped;
  *dropped = task;
}

void Batcher::FinishDropped(FfnTask* dropped) {
  while (dropped != nullptr) {
    FfnTask* next = dropped->next_;
    dropped->Done(dropped->was_cancelled_ ? CancelledStatus() : LateStatus());
    dropped = next;
  }
}

void Batcher::Fail(const absl::Status& status) {
  FfnTask* left = nullptr;
  absl::Status failure = absl::UnavailableError(absl::StrCat(
      "the device failed (", status.message(), "); retry on another replica"));
  {
    MutexLock lock(&mutex_);
    if (!failure_.ok()) return;
    failure_ = failure;
    left = TakeQueue();
  }
  if (options_.on_failure) options_.on_failure(status);
  DropAll(left, failure);
}

FfnTask* Batcher::TakeQueue() {
  FfnTask* head = head_;
  head_ = nullptr;
  tail_ = &head_;
  queued_tokens_.store(0, std::memory_order_release);
  return head;
}

void Batcher::DropAll(FfnTask* head, const absl::Status& status) {
  const absl::StatusOr<FfnTaskResult> error = status;
  while (head != nullptr) {
    FfnTask* next = head->next_;
    head->Done(error);
    head = next;
  }
}

}  // namespace sparse_ffn
