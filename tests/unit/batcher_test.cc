#include "server/batcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <latch>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/fake_lane.h"

namespace sparse_ffn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr size_t kHiddenSize = 3;

// Remembers how it ended.
struct TestTask final : FfnTask {
  TestTask(int task_layer, std::vector<float> first_column,
           Execution task_execution = Execution::kAuto)
      : rows(first_column.size() * kHiddenSize) {
    for (size_t i = 0; i < first_column.size(); ++i) {
      for (size_t j = 0; j < kHiddenSize; ++j) {
        rows[i * kHiddenSize + j] = first_column[i] + static_cast<float>(j);
      }
    }
    layer = task_layer;
    execution = task_execution;
    hidden_states = {rows.data(), first_column.size(), kHiddenSize,
                     DataType::kFloat32};
    cancelled = &gave_up;
  }

  void Done(const absl::StatusOr<FfnTaskResult>& result) override {
    status = result.status();
    if (result.ok()) {
      const auto* first = static_cast<const float*>(result->output.data);
      output.assign(first, first + result->output.rows * kHiddenSize);
      active.assign(result->active_neurons.begin(),
                    result->active_neurons.end());
      batch_tokens = result->batch_tokens;
      union_active = result->union_active_neurons;
      queue_ns = result->queue_ns;
    }
    times_done.fetch_add(1);
  }

  // After the batcher was idle.
  void ExpectResult() const {
    ASSERT_EQ(times_done, 1);
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_EQ(output.size(), rows.size());
    for (size_t i = 0; i < rows.size(); ++i) {
      EXPECT_EQ(output[i], 2 * rows[i] + 1000 * static_cast<float>(layer));
    }
    for (size_t i = 0; i < active.size(); ++i) {
      EXPECT_EQ(active[i], static_cast<uint32_t>(rows[i * kHiddenSize]));
    }
  }

  std::vector<float> rows;
  std::atomic<bool> gave_up{false};
  std::atomic<int> times_done{0};
  absl::Status status;
  std::vector<float> output;
  std::vector<uint32_t> active;
  size_t batch_tokens = 0;
  uint32_t union_active = 0;
  uint64_t queue_ns = 0;
};

SteadyTime RealTimeIn(std::chrono::seconds seconds) {
  return std::chrono::steady_clock::now() + seconds;
}

class BatcherTest : public testing::Test {
 protected:
  void Start(size_t max_batch_tokens, size_t max_queued_tokens) {
    BatcherOptions options;
    options.max_batch_tokens = max_batch_tokens;
    options.max_queued_tokens = max_queued_tokens;
    options.now = [this] { return Now(); };
    options.on_batch = [this](const BatchRecord& batch) { OnBatch(batch); };
    options.on_failure = [this](const absl::Status& status) {
      failures_.push_back(status);
    };
    std::vector<std::unique_ptr<FfnLane>> lanes;
    lanes.push_back(
        std::make_unique<FakeLane>(&control_, kHiddenSize, max_batch_tokens));
    batcher_ = std::make_unique<Batcher>(std::move(options), std::move(lanes));
  }

  void TearDown() override { control_.Release(); }

  // A started batcher whose lane is busy with a batch of layer 99.
  void StartBusy(size_t max_batch_tokens, size_t max_queued_tokens) {
    Start(max_batch_tokens, max_queued_tokens);
    control_.Hold();
    ASSERT_TRUE(batcher_->Submit(&first_).ok());
    control_.WaitForBatches(1);
  }

  // The batches after that of StartBusy, once all is done.
  std::vector<FakeBatch> Finish() {
    control_.Release();
    EXPECT_TRUE(batcher_->WaitIdle(RealTimeIn(std::chrono::seconds(60))));
    first_.ExpectResult();
    std::vector<FakeBatch> batches = control_.batches();
    batches.erase(batches.begin());
    return batches;
  }

  void OnBatch(const BatchRecord& batch) { records_.push_back(batch.tokens); }

  SteadyTime Now() const {
    return SteadyTime(std::chrono::nanoseconds(now_ns_.load()));
  }
  void Advance(std::chrono::nanoseconds by) { now_ns_ += by.count(); }

  FakeLaneControl control_;
  std::atomic<int64_t> now_ns_{1};
  std::vector<size_t> records_;         // Lane's thread.
  std::vector<absl::Status> failures_;  // Lane's thread.
  TestTask first_{99, {1}};
  std::unique_ptr<Batcher> batcher_;
};

TEST_F(BatcherTest, ComputesATaskAtOnce) {
  Start(4, 16);
  TestTask task(2, {5, 7});
  ASSERT_TRUE(batcher_->Submit(&task).ok());
  ASSERT_TRUE(batcher_->WaitIdle(RealTimeIn(std::chrono::seconds(60))));
  task.ExpectResult();
  EXPECT_EQ(task.batch_tokens, 2);
  EXPECT_THAT(task.active, ElementsAre(5, 7));
  EXPECT_THAT(records_, ElementsAre(2));
}

TEST_F(BatcherTest, GroupsLayerAndExecutionOldestFirst) {
  StartBusy(8, 64);
  TestTask tasks[] = {{0, {10}},     {1, {11}}, {0, {12}, Execution::kDense},
                      {0, {13, 14}}, {1, {15}}, {0, {16}, Execution::kDense}};
  for (TestTask& task : tasks) ASSERT_TRUE(batcher_->Submit(&task).ok());
  EXPECT_EQ(batcher_->queued_tokens(), 7);
  EXPECT_THAT(Finish(),
              ElementsAre(FakeBatch{0, Execution::kAuto, {10, 13, 14}},
                          FakeBatch{1, Execution::kAuto, {11, 15}},
                          FakeBatch{0, Execution::kDense, {12, 16}}));
  for (const TestTask& task : tasks) task.ExpectResult();
  EXPECT_EQ(tasks[0].batch_tokens, 3);
  EXPECT_EQ(batcher_->queued_tokens(), 0);
  EXPECT_THAT(records_, ElementsAre(1, 3, 2, 2));
}

// Of the tokens of a task, in which passes of three and more tasks meet.
TEST_F(BatcherTest, TellsOfTheLargestPassOfATask) {
  StartBusy(8, 64);
  control_.SetPassTokens(3);
  TestTask tasks[] = {{0, {9, 1}}, {0, {2, 3, 4}}, {0, {5}}, {0, {8, 6}}};
  for (TestTask& task : tasks) ASSERT_TRUE(batcher_->Submit(&task).ok());
  Finish();
  for (const TestTask& task : tasks) task.ExpectResult();
  // 9 1 2, 3 4 5, 8 6
  EXPECT_EQ(tasks[0].batch_tokens, 3);
  EXPECT_EQ(tasks[0].union_active, 9);
  EXPECT_EQ(tasks[1].batch_tokens, 3);
  EXPECT_EQ(tasks[1].union_active, 9);
  EXPECT_EQ(tasks[2].batch_tokens, 3);
  EXPECT_EQ(tasks[2].union_active, 5);
  EXPECT_EQ(tasks[3].batch_tokens, 2);
  EXPECT_EQ(tasks[3].union_active, 8);
  EXPECT_THAT(records_, ElementsAre(1, 8));
}

TEST_F(BatcherTest, TakesWhatFits) {
  StartBusy(8, 64);
  TestTask tasks[] = {
      {0, {1, 2, 3}}, {0, {4, 5, 6}}, {0, {7, 8, 9}}, {0, {10, 11}}, {0, {12}}};
  for (TestTask& task : tasks) ASSERT_TRUE(batcher_->Submit(&task).ok());
  EXPECT_THAT(
      Finish(),
      ElementsAre(FakeBatch{0, Execution::kAuto, {1, 2, 3, 4, 5, 6, 10, 11}},
                  FakeBatch{0, Execution::kAuto, {7, 8, 9, 12}}));
}

TEST_F(BatcherTest, RefusesATaskOfNoOrTooManyTokens) {
  Start(2, 16);
  TestTask none(0, {});
  TestTask many(0, {1, 2, 3});
  EXPECT_TRUE(absl::IsInvalidArgument(batcher_->Submit(&none)));
  EXPECT_TRUE(absl::IsInvalidArgument(batcher_->Submit(&many)));
}

TEST_F(BatcherTest, RefusesWhatTheQueueCannotHold) {
  StartBusy(4, 5);
  TestTask fits(0, {1, 2, 3});
  TestTask too_large(0, {4, 5, 6});
  TestTask fits_too(0, {7, 8});
  ASSERT_TRUE(batcher_->Submit(&fits).ok());
  const absl::Status full = batcher_->Submit(&too_large);
  EXPECT_TRUE(absl::IsResourceExhausted(full)) << full;
  EXPECT_THAT(std::string(full.message()), HasSubstr("3 of at most 5 tokens"));
  EXPECT_TRUE(batcher_->Submit(&fits_too).ok());
  Finish();
  fits.ExpectResult();
  fits_too.ExpectResult();
  EXPECT_EQ(too_large.times_done, 0);
}

TEST_F(BatcherTest, AFullQueueLetsGoOfWhatNobodyWaitsFor) {
  StartBusy(4, 5);
  TestTask late(0, {1, 2});
  TestTask wanted(0, {3});
  TestTask cancelled(0, {4, 5});
  late.deadline = Now() + std::chrono::microseconds(10);
  for (TestTask* task : {&late, &wanted, &cancelled}) {
    ASSERT_TRUE(batcher_->Submit(task).ok());
  }
  cancelled.gave_up = true;
  Advance(std::chrono::microseconds(10));
  TestTask next(0, {6, 7});
  ASSERT_TRUE(batcher_->Submit(&next).ok());
  // While the lane is busy still.
  EXPECT_EQ(late.times_done, 1);
  EXPECT_TRUE(absl::IsDeadlineExceeded(late.status)) << late.status;
  EXPECT_EQ(cancelled.times_done, 1);
  EXPECT_TRUE(absl::IsCancelled(cancelled.status)) << cancelled.status;
  EXPECT_EQ(batcher_->queued_tokens(), 3);
  TestTask last(0, {8});
  ASSERT_TRUE(batcher_->Submit(&last).ok());
  EXPECT_THAT(Finish(),
              ElementsAre(FakeBatch{0, Execution::kAuto, {3, 6, 7, 8}}));
  for (TestTask* task : {&wanted, &next, &last}) task->ExpectResult();
}

TEST_F(BatcherTest, IsNotIdleWhileASubmitFinishesOthers) {
  struct BlockingTask final : FfnTask {
    void Done(const absl::StatusOr<FfnTaskResult>& /*result*/) override {
      entered.count_down();
      leave.wait();
    }
    std::vector<float> rows = std::vector<float>(4 * kHiddenSize);
    std::atomic<bool> gave_up{false};
    std::latch entered{1};
    std::latch leave{1};
  };
  StartBusy(4, 4);
  BlockingTask blocking;
  blocking.hidden_states = {blocking.rows.data(), 4, kHiddenSize,
                            DataType::kFloat32};
  blocking.cancelled = &blocking.gave_up;
  ASSERT_TRUE(batcher_->Submit(&blocking).ok());
  blocking.gave_up = true;
  TestTask next(0, {1});
  std::thread caller([&] { EXPECT_TRUE(batcher_->Submit(&next).ok()); });
  blocking.entered.wait();
  control_.Release();
  EXPECT_FALSE(batcher_->WaitIdle(std::chrono::steady_clock::now() +
                                  std::chrono::milliseconds(50)));
  blocking.leave.count_down();
  caller.join();
  Finish();
  next.ExpectResult();
}

// Going through the queue for each task that is refused would take too long.
TEST_F(BatcherTest, LooksThroughAFullQueueNowAndThen) {
  StartBusy(4, 4);
  TestTask queued(0, {1, 2, 3, 4});
  TestTask refused(0, {5});
  ASSERT_TRUE(batcher_->Submit(&queued).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(batcher_->Submit(&refused)));
  queued.gave_up = true;
  EXPECT_TRUE(absl::IsResourceExhausted(batcher_->Submit(&refused)));
  EXPECT_EQ(queued.times_done, 0);
  Advance(std::chrono::milliseconds(1));
  EXPECT_TRUE(batcher_->Submit(&refused).ok());
  EXPECT_EQ(queued.times_done, 1);
  Finish();
  refused.ExpectResult();
}

TEST_F(BatcherTest, MeasuresTheTimeInTheQueue) {
  StartBusy(4, 16);
  TestTask task(0, {1});
  ASSERT_TRUE(batcher_->Submit(&task).ok());
  Advance(std::chrono::microseconds(250));
  Finish();
  EXPECT_EQ(task.queue_ns, 250000);
}

TEST_F(BatcherTest, LooksAtTheDeadlineWhenQueued) {
  Start(4, 16);
  TestTask task(0, {1});
  task.deadline = Now();
  EXPECT_TRUE(absl::IsDeadlineExceeded(batcher_->Submit(&task)));
  EXPECT_EQ(task.times_done, 0);
}

TEST_F(BatcherTest, LooksAtTheDeadlineWhenTheBatchCloses) {
  StartBusy(4, 16);
  TestTask late(0, {1});
  TestTask in_time(0, {2});
  late.deadline = Now() + std::chrono::microseconds(10);
  in_time.deadline = Now() + std::chrono::microseconds(11);
  ASSERT_TRUE(batcher_->Submit(&late).ok());
  ASSERT_TRUE(batcher_->Submit(&in_time).ok());
  Advance(std::chrono::microseconds(10));
  EXPECT_THAT(Finish(), ElementsAre(FakeBatch{0, Execution::kAuto, {2}}));
  EXPECT_TRUE(absl::IsDeadlineExceeded(late.status)) << late.status;
  EXPECT_EQ(late.times_done, 1);
  in_time.ExpectResult();
}

TEST_F(BatcherTest, LooksAtTheDeadlineBeforeTheLaunch) {
  StartBusy(4, 16);
  TestTask late(0, {1});
  TestTask in_time(0, {2});
  late.deadline = Now() + std::chrono::microseconds(10);
  ASSERT_TRUE(batcher_->Submit(&late).ok());
  ASSERT_TRUE(batcher_->Submit(&in_time).ok());
  control_.SetOnInput([this] { Advance(std::chrono::microseconds(10)); });
  EXPECT_THAT(Finish(), ElementsAre(FakeBatch{0, Execution::kAuto, {2}}));
  EXPECT_TRUE(absl::IsDeadlineExceeded(late.status)) << late.status;
  in_time.ExpectResult();
}

TEST_F(BatcherTest, LaunchesNothingWhenAllTasksAreLate) {
  StartBusy(4, 16);
  TestTask late(0, {1});
  late.deadline = Now() + std::chrono::microseconds(10);
  ASSERT_TRUE(batcher_->Submit(&late).ok());
  control_.SetOnInput([this] { Advance(std::chrono::microseconds(10)); });
  EXPECT_THAT(Finish(), ElementsAre());
  EXPECT_TRUE(absl::IsDeadlineExceeded(late.status)) << late.status;
}

TEST_F(BatcherTest, LooksAtCancellationWhenQueued) {
  Start(4, 16);
  TestTask task(0, {1});
  task.gave_up = true;
  EXPECT_TRUE(absl::IsCancelled(batcher_->Submit(&task)));
  EXPECT_EQ(task.times_done, 0);
}

TEST_F(BatcherTest, LooksAtCancellationWhenTheBatchCloses) {
  StartBusy(4, 16);
  TestTask cancelled(0, {1, 2});
  TestTask wanted(0, {3});
  ASSERT_TRUE(batcher_->Submit(&cancelled).ok());
  ASSERT_TRUE(batcher_->Submit(&wanted).ok());
  cancelled.gave_up = true;
  EXPECT_THAT(Finish(), ElementsAre(FakeBatch{0, Execution::kAuto, {3}}));
  EXPECT_TRUE(absl::IsCancelled(cancelled.status)) << cancelled.status;
  EXPECT_EQ(batcher_->queued_tokens(), 0);
  wanted.ExpectResult();
}

TEST_F(BatcherTest, ALateTaskIsLateAlsoIfItsCallerCancelled) {
  StartBusy(4, 16);
  TestTask task(0, {1});
  task.deadline = Now() + std::chrono::microseconds(10);
  ASSERT_TRUE(batcher_->Submit(&task).ok());
  control_.SetOnInput([this, &task] {
    task.gave_up = true;
    Advance(std::chrono::microseconds(10));
  });
  EXPECT_THAT(Finish(), ElementsAre());
  EXPECT_TRUE(absl::IsDeadlineExceeded(task.status)) << task.status;
}

TEST_F(BatcherTest, LooksAtCancellationBeforeTheLaunch) {
  StartBusy(4, 16);
  TestTask wanted(0, {1});
  TestTask cancelled(0, {2});
  TestTask wanted_too(0, {3});
  for (TestTask* task : {&wanted, &cancelled, &wanted_too}) {
    ASSERT_TRUE(batcher_->Submit(task).ok());
  }
  control_.SetOnInput([&cancelled] { cancelled.gave_up = true; });
  EXPECT_THAT(Finish(), ElementsAre(FakeBatch{0, Execution::kAuto, {1, 3}}));
  EXPECT_TRUE(absl::IsCancelled(cancelled.status)) << cancelled.status;
  wanted.ExpectResult();
  wanted_too.ExpectResult();
}

TEST_F(BatcherTest, DrainFinishesWhatWasAccepted) {
  StartBusy(1, 16);
  TestTask accepted[] = {{0, {1}}, {1, {2}}, {0, {3}}};
  for (TestTask& task : accepted) ASSERT_TRUE(batcher_->Submit(&task).ok());
  batcher_->Drain();
  TestTask refused(0, {4});
  EXPECT_TRUE(absl::IsUnavailable(batcher_->Submit(&refused)));
  EXPECT_FALSE(batcher_->WaitIdle(RealTimeIn(std::chrono::seconds(0))));
  EXPECT_EQ(Finish().size(), 3);
  for (const TestTask& task : accepted) task.ExpectResult();
  EXPECT_EQ(refused.times_done, 0);
}

TEST_F(BatcherTest, DeviceFailureEndsAllWork) {
  StartBusy(4, 16);
  TestTask failed(0, {1});
  TestTask behind(1, {2});
  ASSERT_TRUE(batcher_->Submit(&failed).ok());
  ASSERT_TRUE(batcher_->Submit(&behind).ok());
  control_.ReleaseOne();
  control_.WaitForBatches(2);
  control_.SetError(absl::InternalError("error 719"));
  EXPECT_EQ(Finish().size(), 1);
  EXPECT_TRUE(absl::IsInternal(failed.status)) << failed.status;
  EXPECT_TRUE(absl::IsUnavailable(behind.status)) << behind.status;
  EXPECT_EQ(behind.times_done, 1);
  TestTask after(0, {3});
  const absl::Status refused = batcher_->Submit(&after);
  EXPECT_TRUE(absl::IsUnavailable(refused));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("error 719"));
  EXPECT_THAT(failures_, ElementsAre(absl::InternalError("error 719")));
}

TEST_F(BatcherTest, OtherErrorsEndOneBatch) {
  StartBusy(4, 16);
  TestTask failed(0, {1});
  TestTask behind(1, {2});
  ASSERT_TRUE(batcher_->Submit(&failed).ok());
  ASSERT_TRUE(batcher_->Submit(&behind).ok());
  control_.ReleaseOne();
  control_.WaitForBatches(2);
  control_.SetError(absl::ResourceExhaustedError("memory"));
  control_.ReleaseOne();
  control_.WaitForBatches(3);
  control_.SetError(absl::OkStatus());
  Finish();
  EXPECT_TRUE(absl::IsResourceExhausted(failed.status)) << failed.status;
  behind.ExpectResult();
  EXPECT_THAT(failures_, ElementsAre());
}

TEST_F(BatcherTest, DestructionAnswersWhatIsQueued) {
  StartBusy(4, 16);
  TestTask queued(0, {1});
  ASSERT_TRUE(batcher_->Submit(&queued).ok());
  std::thread destroyer([this] { batcher_.reset(); });
  while (queued.times_done == 0) std::this_thread::yield();
  EXPECT_TRUE(absl::IsUnavailable(queued.status)) << queued.status;
  control_.Release();
  destroyer.join();
  first_.ExpectResult();
}

}  // namespace
}  // namespace sparse_ffn
