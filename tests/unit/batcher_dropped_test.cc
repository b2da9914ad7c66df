// Tasks that nobody waits for any more: late or cancelled.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <latch>
#include <thread>
#include <vector>

#include "tests/unit/batcher_fixture.h"

namespace sparse_ffn {
namespace {

using testing::ElementsAre;

using BatcherDroppedTest = BatcherTest;

TEST_F(BatcherDroppedTest, LooksAtTheDeadlineWhenQueued) {
  Start(4, 16);
  TestTask task(0, {1});
  task.deadline = Now();
  EXPECT_TRUE(absl::IsDeadlineExceeded(batcher_->Submit(&task)));
  EXPECT_EQ(task.times_done, 0);
}

TEST_F(BatcherDroppedTest, LooksAtTheDeadlineWhenTheBatchCloses) {
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

TEST_F(BatcherDroppedTest, LooksAtTheDeadlineBeforeTheLaunch) {
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

TEST_F(BatcherDroppedTest, LaunchesNothingWhenAllTasksAreLate) {
  StartBusy(4, 16);
  TestTask late(0, {1});
  late.deadline = Now() + std::chrono::microseconds(10);
  ASSERT_TRUE(batcher_->Submit(&late).ok());
  control_.SetOnInput([this] { Advance(std::chrono::microseconds(10)); });
  EXPECT_THAT(Finish(), ElementsAre());
  EXPECT_TRUE(absl::IsDeadlineExceeded(late.status)) << late.status;
}

TEST_F(BatcherDroppedTest, LooksAtCancellationWhenQueued) {
  Start(4, 16);
  TestTask task(0, {1});
  task.gave_up = true;
  EXPECT_TRUE(absl::IsCancelled(batcher_->Submit(&task)));
  EXPECT_EQ(task.times_done, 0);
}

TEST_F(BatcherDroppedTest, LooksAtCancellationWhenTheBatchCloses) {
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

TEST_F(BatcherDroppedTest, ALateTaskIsLateAlsoIfItsCallerCancelled) {
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

TEST_F(BatcherDroppedTest, LooksAtCancellationBeforeTheLaunch) {
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

TEST_F(BatcherDroppedTest, AFullQueueLetsGoOfWhatNobodyWaitsFor) {
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

TEST_F(BatcherDroppedTest, IsNotIdleWhileASubmitFinishesOthers) {
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
TEST_F(BatcherDroppedTest, LooksThroughAFullQueueNowAndThen) {
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

}  // namespace
}  // namespace sparse_ffn
