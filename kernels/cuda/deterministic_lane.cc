#include "kernels/cuda/deterministic_lane.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace sparse_ffn::cuda {
namespace {

using Clock = std::chrono::steady_clock;

// Adds what a pass took, and what it found, to the stats of its batch.
void Add(const FfnStats& pass, FfnStats* batch) {
  batch->union_active_neurons =
      std::max(batch->union_active_neurons, pass.union_active_neurons);
  batch->path = pass.path;
  batch->launched_ahead += pass.launched_ahead;
  batch->copy_in_ns += pass.copy_in_ns;
  batch->gate_ns += pass.gate_ns;
  batch->up_ns += pass.up_ns;
  batch->down_ns += pass.down_ns;
  batch->copy_out_ns += pass.copy_out_ns;
}

class DeterministicLane : public FfnLane {
 public:
  // May throw std::bad_alloc.
  DeterministicLane(std::unique_ptr<FfnLane> lane, const FfnConfig& config,
                    size_t pass_tokens)
      : lane_(std::move(lane)),
        config_(config),
        pass_tokens_(pass_tokens),
        first_rows_(lane_->input(std::min(pass_tokens, config.max_batch_tokens))
                        .bytes()),
        output_(config.max_batch_tokens * config.hidden_size),
        active_(config.max_batch_tokens) {
    passes_.reserve(config.max_batch_tokens);
  }

  Matrix input(size_t tokens) override { return lane_->input(tokens); }
  absl::StatusOr<FfnResult> Run(int layer, size_t tokens,
                                Execution execution) override;

 private:
  // Runs rows first to first + tokens of the input, moved to the place of its
  // first rows. Leaves those rows of output_ and active_, and a pass; `batch`
  // grows.
  absl::Status RunPass(int layer, size_t first, size_t tokens, FfnStats* batch);
  // A sparse batch of more than one pass.
  absl::Status RunPasses(int layer, size_t tokens, FfnStats* batch);

  const std::unique_ptr<FfnLane> lane_;
  const FfnConfig config_;
  const size_t pass_tokens_;
  std::vector<std::byte> first_rows_;  // Of the input, while passes run.
  std::vector<float> output_;          // [max_batch_tokens, hidden_size]
  std::vector<uint32_t> active_;       // [max_batch_tokens]
  std::vector<FfnPass> passes_;
};

absl::Status DeterministicLane::RunPass(int layer, size_t first, size_t tokens,
                                        FfnStats* batch) {
  if (first > 0) {
    const Matrix rows = input(tokens);
    std::memcpy(rows.data, input(first + tokens).row(first), rows.bytes());
  }
  absl::StatusOr<FfnResult> result =
      lane_->Run(layer, tokens, Execution::kSparse);
  if (!result.ok()) return result.status();
  std::memcpy(&output_[first * config_.hidden_size], result->output.row(0),
              result->output.bytes());
  const FfnStats& stats = result->stats;
  std::copy(stats.active_neurons.begin(), stats.active_neurons.end(),
            active_.begin() + static_cast<ptrdiff_t>(first));
  passes_.push_back(
      {static_cast<uint32_t>(tokens), stats.union_active_neurons});
  Add(stats, batch);
  return absl::OkStatus();
}

absl::Status DeterministicLane::RunPasses(int layer, size_t tokens,
                                          FfnStats* batch) {
  // The caller's input stays as it is.
  const Matrix first_rows = input(pass_tokens_);
  std::memcpy(first_rows_.data(), first_rows.data, first_rows.bytes());
  passes_.clear();
  absl::Status status;
  for (size_t first = 0; first < tokens && status.ok(); first += pass_tokens_) {
    status =
        RunPass(layer, first, std::min(pass_tokens_, tokens - first), batch);
  }
  std::memcpy(first_rows.data, first_rows_.data(), first_rows.bytes());
  return status;
}

absl::StatusOr<FfnResult> DeterministicLane::Run(int layer, size_t tokens,
                                                 Execution execution) {
  const Clock::time_point start = Clock::now();
  if (tokens < 1 || tokens > config_.max_batch_tokens) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tokens: expected 1 to ", config_.max_batch_tokens, ", got ", tokens));
  }
  if (execution == Execution::kAuto) execution = Execution::kSparse;
  const auto passed_ns = [start] {
    return static_cast<uint64_t>(
        std::chrono::nanoseconds(Clock::now() - start).count());
  };
  if (execution == Execution::kDense || tokens <= pass_tokens_) {
    absl::StatusOr<FfnResult> whole = lane_->Run(layer, tokens, execution);
    if (whole.ok()) whole->stats.compute_ns = passed_ns();
    return whole;
  }
  FfnResult result;
  absl::Status status = RunPasses(layer, tokens, &result.stats);
  if (!status.ok()) return status;
  result.output = {output_.data(), tokens, config_.hidden_size,
                   DataType::kFloat32};
  result.stats.active_neurons = absl::MakeConstSpan(active_.data(), tokens);
  result.stats.passes = passes_;
  result.stats.compute_ns = passed_ns();
  return result;
}

}  // namespace

absl::StatusOr<std::unique_ptr<FfnLane>> NewDeterministicLane(
    std::unique_ptr<FfnLane> lane, const FfnConfig& config,
    size_t pass_tokens) {
  try {
    return std::make_unique<DeterministicLane>(std::move(lane), config,
                                               pass_tokens);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for the buffers of a lane of ",
                     config.max_batch_tokens, " tokens"));
  }
}

}  // namespace sparse_ffn::cuda
