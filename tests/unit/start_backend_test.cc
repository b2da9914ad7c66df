#include "server/start_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "tests/unit/named_backend.h"

namespace sparse_ffn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr size_t kHiddenSize = 3;
constexpr size_t kMaxTokens = 6;

struct Call {
  int layer;
  size_t tokens;
  Execution execution;

  bool operator==(const Call& other) const {
    return layer == other.layer && tokens == other.tokens &&
           execution == other.execution;
  }
};

// Gives back its input, and NaN in the last place for layer `broken` from
// `broken_from` tokens on. Knows no layer beyond 9.
class EchoLane final : public FfnLane {
 public:
  Matrix input(size_t tokens) override {
    return {values_, tokens, kHiddenSize, DataType::kFloat32};
  }
  absl::StatusOr<FfnResult> Run(int layer, size_t tokens,
                                Execution execution) override {
    calls.push_back({layer, tokens, execution});
    if (layer > 9) return absl::NotFoundError("no such layer");
    float* last = &values_[tokens * kHiddenSize - 1];
    EXPECT_NE(*last, 0) << "what was to be sent";
    if (layer == broken && tokens >= broken_from) {
      *last = std::numeric_limits<float>::quiet_NaN();
    }
    FfnResult result;
    result.output = {values_, tokens, kHiddenSize, DataType::kFloat32};
    return result;
  }

  std::vector<Call> calls;
  int broken = -1;
  size_t broken_from = 1;

 private:
  float values_[kMaxTokens * kHiddenSize] = {};
};

class RunCanaryTest : public testing::Test {
 protected:
  absl::Status Run(const char* backend, const std::vector<int>& layers) {
    FfnConfig config;
    config.hidden_size = kHiddenSize;
    config.max_batch_tokens = kMaxTokens;
    return RunCanary(config, layers, NamedBackend(backend), &lane_);
  }

  EchoLane lane_;
};

TEST_F(RunCanaryTest, SendsATokenThroughEachLayer) {
  EXPECT_TRUE(Run("cpu", {3, 7}).ok());
  EXPECT_THAT(lane_.calls, ElementsAre(Call{3, 1, Execution::kSparse},
                                       Call{3, 1, Execution::kDense},
                                       Call{7, 1, Execution::kSparse},
                                       Call{7, 1, Execution::kDense}));
}

TEST_F(RunCanaryTest, SendsBatchesWhereKernelsAreLoadedLate) {
  EXPECT_TRUE(Run("cuda", {3}).ok());
  EXPECT_THAT(
      lane_.calls,
      ElementsAre(Call{3, 1, Execution::kSparse}, Call{3, 1, Execution::kDense},
                  Call{3, 2, Execution::kSparse}, Call{3, 2, Execution::kDense},
                  Call{3, 4, Execution::kSparse}, Call{3, 4, Execution::kDense},
                  Call{3, kMaxTokens, Execution::kSparse},
                  Call{3, kMaxTokens, Execution::kDense}));
}

TEST_F(RunCanaryTest, NamesALayerThatIsBroken) {
  for (size_t from : {1, 2, 5}) {
    lane_.broken = 7;
    lane_.broken_from = from;
    const absl::Status status = Run("cuda", {7, 3});
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << from;
    EXPECT_THAT(std::string(status.message()), HasSubstr("layer 7"));
  }
  EXPECT_EQ(Run("cpu", {3, 12}), absl::NotFoundError("no such layer"));
}

}  // namespace
}  // namespace sparse_ffn
