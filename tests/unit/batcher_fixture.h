// A batcher over a lane that the test can hold, and tasks for it.
#ifndef SPARSE_FFN_TESTS_UNIT_BATCHER_FIXTURE_H_
#define SPARSE_FFN_TESTS_UNIT_BATCHER_FIXTURE_H_

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "server/batcher.h"
#include "tests/fake_lane.h"

namespace sparse_ffn {

inline constexpr size_t kHiddenSize = 3;

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

inline SteadyTime RealTimeIn(std::chrono::seconds seconds) {
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

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_TESTS_UNIT_BATCHER_FIXTURE_H_
