#include "server/batcher.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sparse_ffn {
namespace {

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
  TaskBatch batch;
  SteadyTime closed_at;
  std::vector<uint64_t> queue_ns;
};

Batcher::Batcher(BatcherOptions options,
                 std::vector<std::unique_ptr<FfnLane>> lanes)
    : options_(std::move(options)) {
  for (std::unique_ptr<FfnLane>& ffn : lanes) {
    auto lane = std::make_unique<Lane>();
    lane->ffn = std::move(ffn);
    lane->batch.tasks.reserve(options_.max_batch_tokens);
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
    left = queue_.TakeAll();
    work_.NotifyAll();
  }
  TaskQueue::FinishAll(
      left, absl::UnavailableError(
                "the server stopped before the request was computed"));
  for (std::thread& thread : threads_) thread.join();
}

absl::Status Batcher::Submit(FfnTask* task) {
  const SteadyTime now = options_.now();
  absl::Status admitted;
  bool wake = false;
  DroppedTasks dropped;
  {
    MutexLock lock(&mutex_);
    admitted = Admit(*task, now);
    if (absl::IsResourceExhausted(admitted) && now >= next_clear_) {
      queue_.TakeDropped(now, &dropped);
      next_clear_ = options_.now() + kClearEvery;
      admitted = Admit(*task, now);
    }
    if (admitted.ok()) {
      task->submitted_ = now;
      queue_.Push(task);
      wake = sleeping_ > 0;
    }
    if (!dropped.empty()) ++running_;  // For WaitIdle.
  }
  if (wake) work_.NotifyOne();
  if (!dropped.empty()) {
    dropped.Finish();
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
  absl::Status wanted = CheckWanted(task, now);
  if (!wanted.ok()) return wanted;
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
  while (!queue_.empty() || running_ > 0) {
    if (!idle_.WaitUntil(&mutex_, deadline)) {
      return queue_.empty() && running_ == 0;
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
  if (running_ == 0 && queue_.empty()) idle_.NotifyAll();
}

// False when the batcher stops.
bool Batcher::WaitForBatch(Lane* lane) {
  if (options_.spin.count() > 0 && queued_tokens() == 0) Spin();
  MutexLock lock(&mutex_);
  while (queue_.empty() && !stopping_) {
    ++sleeping_;
    work_.Wait(&mutex_);
    --sleeping_;
  }
  if (stopping_) return false;
  TaskBatch& batch = lane->batch;
  batch.tasks.clear();
  batch.tokens = 0;
  lane->closed_at = options_.now();
  queue_.TakeBatch(options_.max_batch_tokens, lane->closed_at, &batch);
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

void Batcher::RunBatch(Lane* lane) {
  TaskBatch& batch = lane->batch;
  if (!batch.tasks.empty()) {
    const auto started = std::chrono::steady_clock::now();
    GatherRows(lane, lane->ffn->input(batch.tokens));
    const uint64_t gather_ns =
        Nanoseconds(std::chrono::steady_clock::now() - started);
    if (!batch.tasks.empty()) {
      absl::StatusOr<FfnResult> result =
          lane->ffn->Run(batch.layer, batch.tokens, batch.execution);
      if (result.ok()) {
        result->stats.copy_in_ns += gather_ns;
        result->stats.compute_ns += gather_ns;
      }
      FinishBatch(lane, result);
    }
  }
  batch.dropped.Finish();
}

// Looks at deadline and cancellation once more, task by task, right before the
// rows are copied: what is left is launched at once.
void Batcher::GatherRows(Lane* lane, Matrix input) {
  TaskBatch& batch = lane->batch;
  const SteadyTime now = options_.now();
  size_t kept = 0;
  size_t row = 0;
  for (FfnTask* task : batch.tasks) {
    if (batch.dropped.Take(task, now)) continue;
    const ConstMatrix& rows = task->hidden_states;
    Convert(rows, Matrix{input.row(row), rows.rows, rows.cols, input.dtype});
    row += rows.rows;
    batch.tasks[kept++] = task;
  }
  batch.tasks.resize(kept);
  batch.tokens = row;
}

void Batcher::FinishBatch(Lane* lane, const absl::StatusOr<FfnResult>& result) {
  if (result.ok()) {
    DeliverResult(lane, *result);
    return;
  }
  const absl::StatusOr<FfnTaskResult> error = result.status();
  // Before the replies: whoever reads one and comes again finds the new state.
  if (absl::IsInternal(result.status())) Fail(result.status());
  for (FfnTask* task : lane->batch.tasks) task->Done(error);
}

void Batcher::DeliverResult(Lane* lane, const FfnResult& result) {
  lane->queue_ns.clear();
  absl::StatusOr<FfnTaskResult> part = FfnTaskResult{};
  part->batch = &result.stats;
  size_t row = 0;
  for (FfnTask* task : lane->batch.tasks) {
    const size_t tokens = task->hidden_states.rows;
    part->queue_ns = Nanoseconds(lane->closed_at - task->submitted_);
    part->output = ConstMatrix{result.output.row(row), tokens,
                               result.output.cols, result.output.dtype};
    part->active_neurons = result.stats.active_neurons.subspan(row, tokens);
    const FfnPass most =
        LargestPass(result.stats, lane->batch.tokens, row, tokens);
    part->batch_tokens = most.tokens;
    part->union_active_neurons = most.union_active_neurons;
    lane->queue_ns.push_back(part->queue_ns);
    row += tokens;
    task->Done(part);
  }
  if (!options_.on_batch) return;
  options_.on_batch(BatchRecord{lane->batch.layer, lane->batch.tokens,
                                result.stats, lane->queue_ns});
}

void Batcher::Fail(const absl::Status& status) {
  FfnTask* left = nullptr;
  absl::Status failure = absl::UnavailableError(absl::StrCat(
      "the device failed (", status.message(), "); retry on another replica"));
  {
    MutexLock lock(&mutex_);
    if (!failure_.ok()) return;
    failure_ = failure;
    left = queue_.TakeAll();
  }
  if (options_.on_failure) options_.on_failure(status);
  TaskQueue::FinishAll(left, failure);
}

}  // namespace sparse_ffn
