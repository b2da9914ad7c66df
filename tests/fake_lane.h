// A lane that computes y = 2 x + 1000 layer, reports as many active neurons
// for a token as its first hidden state says, keeps a record of its batches and
// stops in Run when told to.
#ifndef SPARSE_FFN_TESTS_FAKE_LANE_H_
#define SPARSE_FFN_TESTS_FAKE_LANE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/ffn_backend.h"
#include "kernels/matrix.h"
#include "server/mutex.h"

namespace sparse_ffn {

struct FakeBatch {
  int layer = 0;
  Execution execution = Execution::kAuto;
  std::vector<float> first_column;  // First hidden state of each token.

  bool operator==(const FakeBatch&) const = default;
};

// Shared by the test and its lanes; any thread.
class FakeLaneControl {
 public:
  // From now on Run stops before it returns, until Release.
  void Hold() {
    MutexLock lock(&mutex_);
    permits_ = 0;
    holding_ = true;
  }
  // Lets one held batch go.
  void ReleaseOne() {
    MutexLock lock(&mutex_);
    ++permits_;
    changed_.NotifyAll();
  }
  // Ends the hold.
  void Release() {
    MutexLock lock(&mutex_);
    holding_ = false;
    changed_.NotifyAll();
  }
  // Waits until Run was entered `count` times.
  void WaitForBatches(size_t count) {
    MutexLock lock(&mutex_);
    while (batches_.size() < count) changed_.Wait(&mutex_);
  }
  std::vector<FakeBatch> batches() {
    MutexLock lock(&mutex_);
    return batches_;
  }
  // What Run returns from now on.
  void SetError(const absl::Status& status) {
    MutexLock lock(&mutex_);
    error_ = status;
  }
  // From now on Run says that its tokens ran in passes of so many.
  void SetPassTokens(size_t tokens) {
    MutexLock lock(&mutex_);
    pass_tokens_ = tokens;
  }
  // Called by each input(): after the batch closed, before its launch.
  void SetOnInput(std::function<void()> on_input) {
    MutexLock lock(&mutex_);
    on_input_ = std::move(on_input);
  }

 private:
  friend class FakeLane;

  void Input() {
    std::function<void()> call;
    {
      MutexLock lock(&mutex_);
      call = on_input_;
    }
    if (call) call();
  }

  size_t pass_tokens() {
    MutexLock lock(&mutex_);
    return pass_tokens_;
  }

  absl::Status Run(FakeBatch batch) {
    MutexLock lock(&mutex_);
    batches_.push_back(std::move(batch));
    changed_.NotifyAll();
    while (holding_ && permits_ == 0) changed_.Wait(&mutex_);
    if (holding_) --permits_;
    return error_;
  }

  Mutex mutex_;
  CondVar changed_;
  bool holding_ ABSL_GUARDED_BY(mutex_) = false;
  int permits_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status error_ ABSL_GUARDED_BY(mutex_);
  size_t pass_tokens_ ABSL_GUARDED_BY(mutex_) = SIZE_MAX;
  std::function<void()> on_input_ ABSL_GUARDED_BY(mutex_);
  std::vector<FakeBatch> batches_ ABSL_GUARDED_BY(mutex_);
};

class FakeLane final : public FfnLane {
 public:
  FakeLane(FakeLaneControl* control, size_t hidden_size,
           size_t max_batch_tokens)
      : control_(control),
        hidden_size_(hidden_size),
        input_(hidden_size * max_batch_tokens),
        output_(input_.size()),
        active_(max_batch_tokens) {}

  Matrix input(size_t tokens) override {
    control_->Input();
    return {input_.data(), tokens, hidden_size_, DataType::kFloat32};
  }

  absl::StatusOr<FfnResult> Run(int layer, size_t tokens,
                                Execution execution) override {
    FakeBatch batch{layer, execution, {}};
    uint32_t widest = 0;
    for (size_t i = 0; i < tokens; ++i) {
      batch.first_column.push_back(input_[i * hidden_size_]);
      active_[i] = static_cast<uint32_t>(batch.first_column.back());
      widest = std::max(widest, active_[i]);
    }
    for (size_t i = 0; i < tokens * hidden_size_; ++i) {
      output_[i] = 2 * input_[i] + 1000 * static_cast<float>(layer);
    }
    absl::Status status = control_->Run(std::move(batch));
    if (!status.ok()) return status;
    FfnResult result;
    result.output = {output_.data(), tokens, hidden_size_, DataType::kFloat32};
    result.stats.active_neurons = absl::MakeConstSpan(active_.data(), tokens);
    result.stats.union_active_neurons = widest;
    result.stats.passes = Passes(tokens);
    result.stats.path =
        execution == Execution::kDense ? FfnPath::kDense : FfnPath::kSparse;
    result.stats.compute_ns = 1;
    return result;
  }

 private:
  absl::Span<const FfnPass> Passes(size_t tokens) {
    const size_t most = control_->pass_tokens();
    passes_.clear();
    if (tokens <= most) return {};
    for (size_t first = 0; first < tokens; first += most) {
      const size_t end = std::min(first + most, tokens);
      passes_.push_back(
          {static_cast<uint32_t>(end - first),
           *std::max_element(&active_[first], active_.data() + end)});
    }
    return passes_;
  }

  FakeLaneControl* const control_;
  const size_t hidden_size_;
  std::vector<float> input_;
  std::vector<float> output_;
  std::vector<uint32_t> active_;
  std::vector<FfnPass> passes_;
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_TESTS_FAKE_LANE_H_
