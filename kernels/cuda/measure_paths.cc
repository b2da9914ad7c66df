#include "kernels/cuda/measure_paths.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <utility>

#include "kernels/cuda/path_choice.h"

namespace sparse_ffn::cuda {
namespace {

// The first round warms up: libraries load kernels when they first use them.
constexpr size_t kRounds = 16;
// Enough, once a number of tokens has had its share of the time.
constexpr size_t kLeastRounds = 6;
// What to reach at least to tell what full density takes.
constexpr float kLeastDensity = 0.1F;
// Between two densities of a path: closer, chance would make the slope.
constexpr double kLeastStep = 0.02;
// Halvings of all positive floats, as integers; leaves 0.1 % of the threshold.
constexpr int kSearchSteps = 18;
constexpr float kNone = std::numeric_limits<float>::infinity();

// Batches of one number of tokens on one path.
struct Case {
  FfnPath path;
  float threshold;
  std::vector<double> microseconds = {};
  std::vector<double> densities = {};
};

double Median(std::vector<double> values) {
  const auto middle =
      values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

class Measuring {
 public:
  Measuring(const MeasurePlan& plan, const TimeBatch& time)
      : plan_(plan),
        time_(time),
        tokens_(TokensToMeasure(plan.max_batch_tokens, plan.hidden_size)) {}

  const std::vector<size_t>& tokens() const { return tokens_; }
  bool TimeIsUp() const { return spent_us_ >= plan_.seconds * 1e6; }
  // Appends to `costs`, or nothing.
  absl::Status Measure(size_t tokens, std::vector<PathCost>* costs);

 private:
  absl::StatusOr<TimedBatch> Run(size_t layer, size_t tokens, FfnPath path,
                                 float threshold);
  absl::StatusOr<float> FindThreshold(size_t tokens, float density);
  std::vector<Case> Cases(size_t tokens, float half_threshold) const;
  // False where the time was up before there was enough.
  absl::StatusOr<bool> RunRounds(size_t tokens, std::vector<Case>* cases);

  const MeasurePlan& plan_;
  const TimeBatch& time_;
  const std::vector<size_t> tokens_;
  double spent_us_ = 0;
};

absl::StatusOr<TimedBatch> Measuring::Run(size_t layer, size_t tokens,
                                          FfnPath path, float threshold) {
  absl::StatusOr<TimedBatch> batch =
      time_(layer % plan_.layers, tokens, path, threshold);
  if (batch.ok()) spent_us_ += batch->microseconds;
  return batch;
}

// Of the layer in the middle, on the dense path, which takes as long at any
// density.
absl::StatusOr<float> Measuring::FindThreshold(size_t tokens, float density) {
  // Positive floats are in the order of their bits.
  auto low = std::bit_cast<uint32_t>(0.0F);
  auto high = std::bit_cast<uint32_t>(kNone);
  for (int i = 0; i < kSearchSteps; ++i) {
    const uint32_t middle = low + (high - low) / 2;
    const absl::StatusOr<TimedBatch> batch =
        Run(plan_.layers / 2, tokens, FfnPath::kDense,
            std::bit_cast<float>(middle));
    if (!batch.ok()) return batch.status();
    (batch->union_density > density ? low : high) = middle;
  }
  return std::bit_cast<float>(high);
}

std::vector<Case> Measuring::Cases(size_t tokens, float half_threshold) const {
  const bool fused = plan_.fused(tokens);
  // Passes leave no batch to the steps.
  const bool steps = !fused || tokens <= kMaxBatchFormTokens;
  std::vector<Case> cases = {{FfnPath::kDense, 0}};
  for (auto [path, taken] : {std::pair(FfnPath::kSparse, steps),
                             std::pair(FfnPath::kFused, fused)}) {
    if (!taken) continue;
    for (float threshold : {kNone, half_threshold, 0.0F}) {
      cases.push_back({path, threshold});
    }
  }
  return cases;
}

absl::StatusOr<bool> Measuring::RunRounds(size_t tokens,
                                          std::vector<Case>* cases) {
  const double share_us =
      plan_.seconds * 1e6 / static_cast<double>(tokens_.size());
  const double start_us = spent_us_;
  for (size_t round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < cases->size(); ++i) {
      Case& now = (*cases)[i];
      if (TimeIsUp()) return round >= kLeastRounds;
      const absl::StatusOr<TimedBatch> batch =
          Run(round + i, tokens, now.path, now.threshold);
      if (!batch.ok()) return batch.status();
      if (round == 0) continue;
      now.microseconds.push_back(batch->microseconds);
      now.densities.push_back(batch->union_density);
    }
    if (round + 1 >= kLeastRounds && spent_us_ - start_us >= share_us) break;
  }
  return true;
}

absl::Status Measuring::Measure(size_t tokens, std::vector<PathCost>* costs) {
  const absl::StatusOr<TimedBatch> most =
      Run(plan_.layers / 2, tokens, FfnPath::kDense, 0);
  if (!most.ok()) return most.status();
  if (most->union_density < kLeastDensity) return absl::OkStatus();
  const absl::StatusOr<float> half =
      FindThreshold(tokens, most->union_density / 2);
  if (!half.ok()) return half.status();
  std::vector<Case> cases = Cases(tokens, *half);
  const absl::StatusOr<bool> enough = RunRounds(tokens, &cases);
  if (!enough.ok()) return enough.status();
  if (!*enough) return absl::OkStatus();
  for (const Case& done : cases) {
    PathCost cost{done.path, tokens, 0, Median(done.microseconds)};
    if (done.path != FfnPath::kDense) {
      cost.union_density = Median(done.densities);
    }
    const bool first = costs->empty() || costs->back().path != done.path ||
                       costs->back().tokens != tokens;
    if (first ||
        cost.union_density >= costs->back().union_density + kLeastStep) {
      costs->push_back(cost);
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<size_t> TokensToMeasure(size_t max_batch_tokens,
                                    size_t hidden_size) {
  std::vector<size_t> tokens;
  for (size_t power = 1; power <= max_batch_tokens; power *= 2) {
    tokens.push_back(power);
    const size_t next = power + 1;
    const bool batch_form_ends =
        UsesBatchForm(power, hidden_size) && !UsesBatchForm(next, hidden_size);
    if (next <= max_batch_tokens &&
        (batch_form_ends || power == kMaxOneKernelTokens)) {
      tokens.push_back(next);
    }
  }
  if (tokens.back() != max_batch_tokens) tokens.push_back(max_batch_tokens);
  return tokens;
}

absl::StatusOr<std::vector<PathCost>> MeasurePaths(
    const MeasurePlan& plan, const TimeBatch& time,
    const std::function<void()>& progress) {
  Measuring measuring(plan, time);
  std::vector<PathCost> costs;
  for (size_t tokens : measuring.tokens()) {
    if (measuring.TimeIsUp()) break;
    absl::Status status = measuring.Measure(tokens, &costs);
    if (!status.ok()) return status;
    progress();
  }
  return costs;
}

}  // namespace sparse_ffn::cuda
