#include "server/batcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>

#include "tests/unit/batcher_fixture.h"

namespace sparse_ffn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

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

TEST_F(BatcherTest, MeasuresTheTimeInTheQueue) {
  StartBusy(4, 16);
  TestTask task(0, {1});
  ASSERT_TRUE(batcher_->Submit(&task).ok());
  Advance(std::chrono::microseconds(250));
  Finish();
  EXPECT_EQ(task.queue_ns, 250000);
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
