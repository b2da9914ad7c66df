#include "kernels/cuda/deterministic_lane.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/aligned_memory.h"

namespace sparse_ffn::cuda {
namespace {

using Clock = std::chrono::steady_clock;

// Adds what one token took, and what it found, to the stats of its batch.
void Add(const FfnStats& token, FfnStats* batch) {
  batch->union_active_neurons =
      std::max(batch->union_active_neurons, token.union_active_neurons);
  batch->path = token.path;
  batch->copy_in_ns += token.copy_in_ns;
  batch->gate_ns += token.gate_ns;
  batch->up_ns += token.up_ns;
  batch->down_ns += token.down_ns;
  batch->copy_out_ns += token.copy_out_ns;
}

class DeterministicLane : public FfnLane {
 public:
  // May throw std::bad_alloc.
  DeterministicLane(std::unique_ptr<FfnLane> lane, const FfnConfig& config)
      : lane_(std::move(lane)),
        config_(config),
        output_(config.max_batch_tokens * config.hidden_size),
        active_(config.max_batch_tokens) {}

  absl::Status Allocate() {
    const size_t bytes = input(config_.max_batch_tokens).bytes();
    auto made = cpu::NewAlignedMemory(bytes, "the rows of a lane");
    if (!made.ok()) return made.status();
    input_ = *std::move(made);
    std::memset(input_.get(), 0, bytes);
    return absl::OkStatus();
  }

  Matrix input(size_t tokens) override {
    return {input_.get(), tokens, config_.hidden_size, config_.weights_dtype};
  }
  absl::StatusOr<FfnResult> Run(int layer, size_t tokens,
                                Execution execution) override;

 private:
  // Leaves the token's row of output_ and active_; `batch` grows.
  absl::Status RunToken(int layer, size_t token, Execution execution,
                        FfnStats* batch);

  const std::unique_ptr<FfnLane> lane_;
  const FfnConfig config_;
  cpu::AlignedMemory input_;      // [max_batch_tokens, hidden_size]
  std::vector<float> output_;     // [max_batch_tokens, hidden_size]
  std::vector<uint32_t> active_;  // [max_batch_tokens]
};

absl::Status DeterministicLane::RunToken(int layer, size_t token,
                                         Execution execution, FfnStats* batch) {
  const Matrix row = lane_->input(1);
  std::memcpy(row.data, input(token + 1).row(token), row.row_bytes());
  absl::StatusOr<FfnResult> result = lane_->Run(layer, 1, execution);
  if (!result.ok()) return result.status();
  std::memcpy(&output_[token * config_.hidden_size], result->output.row(0),
              result->output.row_bytes());
  active_[token] = result->stats.active_neurons[0];
  Add(result->stats, batch);
  return absl::OkStatus();
}

absl::StatusOr<FfnResult> DeterministicLane::Run(int layer, size_t tokens,
                                                 Execution execution) {
  const Clock::time_point start = Clock::now();
  if (tokens < 1 || tokens > config_.max_batch_tokens) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tokens: expected 1 to ", config_.max_batch_tokens, ", got ", tokens));
  }
  if (execution == Execution::kAuto) execution = Execution::kSparse;
  FfnResult result;
  result.stats.one_by_one = true;
  for (size_t token = 0; token < tokens; ++token) {
    absl::Status status = RunToken(layer, token, execution, &result.stats);
    if (!status.ok()) return status;
  }
  result.output = {output_.data(), tokens, config_.hidden_size,
                   DataType::kFloat32};
  result.stats.active_neurons = absl::MakeConstSpan(active_.data(), tokens);
  result.stats.compute_ns = static_cast<uint64_t>(
      std::chrono::nanoseconds(Clock::now() - start).count());
  return result;
}

}  // namespace

absl::StatusOr<std::unique_ptr<FfnLane>> NewDeterministicLane(
    std::unique_ptr<FfnLane> lane, const FfnConfig& config) {
  try {
    auto made = std::make_unique<DeterministicLane>(std::move(lane), config);
    absl::Status status = made->Allocate();
    if (!status.ok()) return status;
    return made;
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for the buffers of a lane of ",
                     config.max_batch_tokens, " tokens"));
  }
}

}  // namespace sparse_ffn::cuda
