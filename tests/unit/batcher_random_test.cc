// The batcher against the simplest model of it: a list of tasks, and the rule
// by which a batch is taken from it. And many threads at once.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <deque>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "server/batcher.h"
#include "tests/fake_lane.h"

namespace sparse_ffn {
namespace {

constexpr size_t kFixtureBatchTokens = 8;
constexpr size_t kMaxQueuedTokens = 20;

struct RandomTask final : FfnTask {
  RandomTask(int task_layer, Execution task_execution, size_t tokens, float id)
      : rows(tokens, id) {
    layer = task_layer;
    execution = task_execution;
    hidden_states = {rows.data(), tokens, 1, DataType::kFloat32};
    cancelled = &gave_up;
  }
  void Done(const absl::StatusOr<FfnTaskResult>& result) override {
    code = result.status().code();
    times_done.fetch_add(1);
  }

  std::vector<float> rows;
  std::atomic<bool> gave_up{false};
  std::atomic<int> times_done{0};
  std::atomic<absl::StatusCode> code{absl::StatusCode::kUnknown};
  absl::StatusCode expected = absl::StatusCode::kUnknown;
  bool accepted = false;
};

// What the batcher should do.
struct Model {
  std::deque<RandomTask*> queue;
  std::vector<FakeBatch> batches;
  std::vector<RandomTask*> running;
  SteadyTime next_clear;

  size_t tokens() const {
    size_t sum = 0;
    for (const RandomTask* task : queue) sum += task->rows.size();
    return sum;
  }

  absl::StatusCode Submit(RandomTask* task, SteadyTime now) {
    if (now >= task->deadline) return absl::StatusCode::kDeadlineExceeded;
    if (task->gave_up) return absl::StatusCode::kCancelled;
    const auto fits = [&] {
      return tokens() + task->rows.size() <= kMaxQueuedTokens;
    };
    if (!fits() && now >= next_clear) {
      next_clear = now + Batcher::kClearEvery;
      Clear(now);
    }
    if (!fits()) return absl::StatusCode::kResourceExhausted;
    queue.push_back(task);
    return absl::StatusCode::kOk;
  }

  // Whether nobody waits for the task any more.
  static bool Drop(RandomTask* task, SteadyTime now) {
    if (now >= task->deadline) {
      task->expected = absl::StatusCode::kDeadlineExceeded;
    } else if (task->gave_up) {
      task->expected = absl::StatusCode::kCancelled;
    } else {
      return false;
    }
    return true;
  }

  void Clear(SteadyTime now) {
    std::deque<RandomTask*> left;
    for (RandomTask* task : queue) {
      if (!Drop(task, now)) left.push_back(task);
    }
    queue = std::move(left);
  }

  void EndBatch() {
    for (RandomTask* task : running) task->expected = absl::StatusCode::kOk;
    running.clear();
  }

  void TakeBatch(SteadyTime now) {
    FakeBatch batch;
    std::deque<RandomTask*> left;
    for (RandomTask* task : queue) {
      const size_t tokens = task->rows.size();
      if (batch.first_column.size() == kFixtureBatchTokens) {
        left.push_back(task);
      } else if (Drop(task, now)) {
        continue;
      } else if (running.empty() ||
                 (task->layer == batch.layer &&
                  task->execution == batch.execution &&
                  batch.first_column.size() + tokens <= kFixtureBatchTokens)) {
        batch.layer = task->layer;
        batch.execution = task->execution;
        batch.first_column.insert(batch.first_column.end(), tokens,
                                  task->rows[0]);
        running.push_back(task);
      } else {
        left.push_back(task);
      }
    }
    queue = std::move(left);
    if (!running.empty()) batches.push_back(batch);
  }
};

class Walk {
 public:
  explicit Walk(uint32_t seed) : random_(seed) {
    BatcherOptions options;
    options.max_batch_tokens = kFixtureBatchTokens;
    options.max_queued_tokens = kMaxQueuedTokens;
    options.now = [this] { return Now(); };
    std::vector<std::unique_ptr<FfnLane>> lanes;
    lanes.push_back(
        std::make_unique<FakeLane>(&control_, 1, kFixtureBatchTokens));
    control_.Hold();
    batcher_ = std::make_unique<Batcher>(std::move(options), std::move(lanes));
  }

  void Step() {
    const uint32_t choice = random_() % 8;
    if (choice < 4) {
      Submit();
    } else if (choice == 4 && !tasks_.empty()) {
      Cancel(tasks_[random_() % tasks_.size()].get());
    } else if (choice == 5) {
      now_ns_ += Below(std::chrono::microseconds(700)).count();
    } else {
      Release();
    }
    EXPECT_EQ(batcher_->queued_tokens(), model_.tokens());
  }

  void Finish() {
    while (!model_.running.empty()) Release();
    EXPECT_TRUE(batcher_->WaitIdle(std::chrono::steady_clock::now() +
                                   std::chrono::seconds(60)));
    EXPECT_EQ(control_.batches(), model_.batches);
    for (const std::unique_ptr<RandomTask>& task : tasks_) {
      EXPECT_EQ(task->times_done, task->accepted ? 1 : 0);
      EXPECT_TRUE(!task->accepted || task->code == task->expected);
    }
  }

 private:
  std::chrono::nanoseconds Below(std::chrono::nanoseconds most) {
    return std::chrono::nanoseconds(random_() % most.count());
  }
  SteadyTime Now() const {
    return SteadyTime(std::chrono::nanoseconds(now_ns_.load()));
  }

  void Submit() {
    auto made = std::make_unique<RandomTask>(
        random_() % 3,
        random_() % 4 == 0 ? Execution::kDense : Execution::kAuto,
        1 + random_() % kFixtureBatchTokens, static_cast<float>(tasks_.size()));
    RandomTask* task = made.get();
    tasks_.push_back(std::move(made));
    if (random_() % 3 == 0) {
      task->deadline = Now() + Below(std::chrono::milliseconds(1));
    }
    const absl::StatusCode expected = model_.Submit(task, Now());
    EXPECT_EQ(batcher_->Submit(task).code(), expected);
    task->accepted = expected == absl::StatusCode::kOk;
    if (task->accepted && model_.running.empty()) TakeBatch();
  }

  // A task that runs is past cancelling.
  void Cancel(RandomTask* task) { task->gave_up = true; }

  void Release() {
    if (model_.running.empty()) return;
    model_.EndBatch();
    control_.ReleaseOne();
    TakeBatch();
  }

  // The lane is free: waits until it holds the batch that the model takes too.
  void TakeBatch() {
    model_.TakeBatch(Now());
    if (model_.running.empty()) {
      EXPECT_TRUE(batcher_->WaitIdle(std::chrono::steady_clock::now() +
                                     std::chrono::seconds(60)));
    } else {
      control_.WaitForBatches(model_.batches.size());
    }
  }

  std::mt19937 random_;
  FakeLaneControl control_;
  std::atomic<int64_t> now_ns_{1};
  std::vector<std::unique_ptr<RandomTask>> tasks_;
  Model model_;
  std::unique_ptr<Batcher> batcher_;
};

TEST(BatcherRandomTest, DoesWhatTheModelDoes) {
  const uint32_t first_seed = std::random_device()();
  for (uint32_t seed = first_seed; seed < first_seed + 20; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Walk walk(seed);
    for (int step = 0; step < 500; ++step) walk.Step();
    walk.Finish();
    if (testing::Test::HasFailure()) break;
  }
  std::printf("first seed %u\n", first_seed);
}

TEST(BatcherRandomTest, AnswersEachTaskOnceWithManyThreads) {
  constexpr int kThreads = 4;
  constexpr int kTasks = 2000;
  FakeLaneControl control;
  BatcherOptions options;
  options.max_batch_tokens = kFixtureBatchTokens;
  options.max_queued_tokens = kMaxQueuedTokens;
  options.spin = std::chrono::microseconds(5);
  std::vector<std::unique_ptr<FfnLane>> lanes;
  for (int i = 0; i < 2; ++i) {
    lanes.push_back(
        std::make_unique<FakeLane>(&control, 1, kFixtureBatchTokens));
  }
  Batcher batcher(std::move(options), std::move(lanes));
  std::vector<std::vector<std::unique_ptr<RandomTask>>> tasks(kThreads);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([thread, &batcher, &mine = tasks[thread]] {
      for (int i = 0; i < kTasks; ++i) {
        mine.push_back(std::make_unique<RandomTask>(
            i % 3, Execution::kAuto, 1 + i % 4, static_cast<float>(thread)));
        mine.back()->accepted = batcher.Submit(mine.back().get()).ok();
        if (i % 16 == 0) mine.back()->gave_up = true;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  batcher.Drain();
  ASSERT_TRUE(batcher.WaitIdle(std::chrono::steady_clock::now() +
                               std::chrono::seconds(60)));
  int accepted = 0;
  for (const auto& mine : tasks) {
    for (const std::unique_ptr<RandomTask>& task : mine) {
      EXPECT_EQ(task->times_done, task->accepted ? 1 : 0);
      accepted += task->accepted ? 1 : 0;
    }
  }
  EXPECT_GT(accepted, 0);
}

}  // namespace
}  // namespace sparse_ffn
