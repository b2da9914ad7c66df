#include "kernels/cuda/deterministic_lane.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

namespace sparse_ffn::cuda {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

constexpr size_t kHiddenSize = 3;
constexpr size_t kMaxTokens = 5;
constexpr size_t kPassTokens = 2;

struct Call {
  int layer;
  size_t tokens;
  Execution execution;

  bool operator==(const Call& other) const {
    return layer == other.layer && tokens == other.tokens &&
           execution == other.execution;
  }
};

// Doubles its input and adds the number of tokens; as many neurons are active
// as the first column says, and in the union as in all tokens together. Knows
// no layer but those below 10, of which the last works but once.
class DoublingLane final : public FfnLane {
 public:
  explicit DoublingLane(std::vector<Call>* calls) : calls_(calls) {}

  Matrix input(size_t tokens) override {
    return {input_, tokens, kHiddenSize, DataType::kFloat32};
  }
  absl::StatusOr<FfnResult> Run(int layer, size_t tokens,
                                Execution execution) override {
    calls_->push_back({layer, tokens, execution});
    if (layer >= 10) return absl::NotFoundError("no such layer");
    if (layer == 9 && calls_->size() > 1) return absl::InternalError("broken");
    for (size_t i = 0; i < tokens * kHiddenSize; ++i) {
      output_[i] = 2 * input_[i] + static_cast<float>(tokens);
    }
    uint32_t all = 0;
    for (size_t t = 0; t < tokens; ++t) {
      active_[t] = static_cast<uint32_t>(input_[t * kHiddenSize]);
      all += active_[t];
    }
    FfnResult result;
    result.output = {output_, tokens, kHiddenSize, DataType::kFloat32};
    result.stats.active_neurons = absl::MakeConstSpan(active_, tokens);
    result.stats.union_active_neurons = all;
    result.stats.path =
        execution == Execution::kDense ? FfnPath::kDense : FfnPath::kFused;
    result.stats.launched_ahead = 1;
    result.stats.copy_in_ns = 1;
    result.stats.gate_ns = 10;
    result.stats.up_ns = 100;
    result.stats.down_ns = 1000;
    result.stats.copy_out_ns = 10000;
    return result;
  }

 private:
  std::vector<Call>* const calls_;
  float input_[kMaxTokens * kHiddenSize] = {};
  float output_[kMaxTokens * kHiddenSize] = {};
  uint32_t active_[kMaxTokens] = {};
};

class DeterministicLaneTest : public testing::Test {
 protected:
  DeterministicLaneTest() {
    FfnConfig config;
    config.hidden_size = kHiddenSize;
    config.intermediate_size = 100;
    config.max_batch_tokens = kMaxTokens;
    config.weights_dtype = DataType::kFloat32;
    auto doubling = std::make_unique<DoublingLane>(&calls_);
    doubling_ = doubling.get();
    lane_ =
        NewDeterministicLane(std::move(doubling), config, kPassTokens).value();
  }

  void Fill(const std::vector<float>& rows) {
    const Matrix input = lane_->input(rows.size() / kHiddenSize);
    // That of its lane: nobody copies it there.
    EXPECT_EQ(input.data, doubling_->input(1).data);
    std::memcpy(input.data, rows.data(), input.bytes());
  }

  static std::vector<float> Values(const FfnResult& result) {
    const auto* output = static_cast<const float*>(result.output.data);
    return {output, output + result.output.rows * kHiddenSize};
  }
  // Tokens and neurons of each.
  static std::vector<std::pair<uint32_t, uint32_t>> Passes(
      const FfnResult& result) {
    std::vector<std::pair<uint32_t, uint32_t>> passes;
    for (const FfnPass& pass : result.stats.passes) {
      passes.emplace_back(pass.tokens, pass.union_active_neurons);
    }
    return passes;
  }

  std::vector<Call> calls_;
  DoublingLane* doubling_ = nullptr;  // lane_ has it.
  std::unique_ptr<FfnLane> lane_;
};

TEST_F(DeterministicLaneTest, RunsDenseTokensAtOnce) {
  Fill({7, 1, 2, 9, 3, 4, 8, 5, 6});
  const FfnResult result = lane_->Run(4, 3, Execution::kDense).value();
  EXPECT_THAT(calls_, ElementsAre(Call{4, 3, Execution::kDense}));
  EXPECT_THAT(Values(result), ElementsAre(17, 5, 7, 21, 9, 11, 19, 13, 15));
  EXPECT_THAT(result.stats.active_neurons, ElementsAre(7, 9, 8));
  EXPECT_THAT(Passes(result), IsEmpty());
  EXPECT_EQ(result.stats.path, FfnPath::kDense);
  EXPECT_GT(result.stats.compute_ns, 0U);
}

// And leaves no choice.
TEST_F(DeterministicLaneTest, RunsOtherTokensInPasses) {
  Fill({7, 1, 2, 9, 3, 4, 8, 5, 6, 1, 1, 1, 2, 2, 2});
  for (Execution execution : {Execution::kAuto, Execution::kSparse}) {
    calls_.clear();  // The input stays.
    const FfnResult result = lane_->Run(0, 5, execution).value();
    EXPECT_THAT(calls_, ElementsAre(Call{0, 2, Execution::kSparse},
                                    Call{0, 2, Execution::kSparse},
                                    Call{0, 1, Execution::kSparse}));
    ASSERT_EQ(result.output.rows, 5U);
    ASSERT_EQ(result.output.cols, kHiddenSize);
    ASSERT_EQ(result.output.dtype, DataType::kFloat32);
    EXPECT_THAT(Values(result),
                ElementsAre(16, 4, 6, 20, 8, 10, 18, 12, 14, 4, 4, 4, 5, 5, 5));
    EXPECT_THAT(result.stats.active_neurons, ElementsAre(7, 9, 8, 1, 2));
    EXPECT_THAT(Passes(result),
                ElementsAre(Pair(2, 16), Pair(2, 9), Pair(1, 2)));
    EXPECT_EQ(result.stats.union_active_neurons, 16U);
    EXPECT_EQ(result.stats.path, FfnPath::kFused);
    EXPECT_EQ(result.stats.launched_ahead, 3U);
    EXPECT_EQ(result.stats.copy_in_ns, 3U);
    EXPECT_EQ(result.stats.gate_ns, 30U);
    EXPECT_EQ(result.stats.up_ns, 300U);
    EXPECT_EQ(result.stats.down_ns, 3000U);
    EXPECT_EQ(result.stats.copy_out_ns, 30000U);
    EXPECT_GT(result.stats.compute_ns, 0U);
  }
}

TEST_F(DeterministicLaneTest, OnePassIsTheBatch) {
  Fill({7, 1, 2, 9, 3, 4});
  const FfnResult result = lane_->Run(0, 2, Execution::kSparse).value();
  EXPECT_THAT(Passes(result), IsEmpty());
  EXPECT_THAT(Values(result), ElementsAre(16, 4, 6, 20, 8, 10));
  EXPECT_THAT(result.stats.active_neurons, ElementsAre(7, 9));
  EXPECT_EQ(result.stats.union_active_neurons, 16U);
  EXPECT_GT(result.stats.compute_ns, 0U);
}

TEST_F(DeterministicLaneTest, RefusesWhatItsLaneDoes) {
  for (size_t tokens : {size_t{0}, kMaxTokens + 1, SIZE_MAX}) {
    EXPECT_EQ(lane_->Run(0, tokens, Execution::kAuto).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(calls_.empty());
  Fill({7, 1, 2, 9, 3, 4, 8, 5, 6, 1, 1, 1, 2, 2, 2});
  for (int i = 0; i < 2; ++i) {  // The input stays, too.
    EXPECT_EQ(lane_->Run(10, kMaxTokens, Execution::kAuto).status(),
              absl::NotFoundError("no such layer"));
    EXPECT_EQ(calls_.size(), 1U);
    const FfnResult result = lane_->Run(0, 2, Execution::kAuto).value();
    EXPECT_THAT(Values(result), ElementsAre(16, 4, 6, 20, 8, 10));
    calls_.clear();
  }
}

TEST_F(DeterministicLaneTest, InputStaysWhereALaterPassFails) {
  Fill({7, 1, 2, 9, 3, 4, 8, 5, 6, 1, 1, 1, 2, 2, 2});
  EXPECT_EQ(lane_->Run(9, kMaxTokens, Execution::kSparse).status(),
            absl::InternalError("broken"));
  EXPECT_EQ(calls_.size(), 2U);
  const FfnResult result = lane_->Run(0, 2, Execution::kAuto).value();
  EXPECT_THAT(Values(result), ElementsAre(16, 4, 6, 20, 8, 10));
}

}  // namespace
}  // namespace sparse_ffn::cuda
