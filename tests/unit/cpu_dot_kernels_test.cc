#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "hwy/targets.h"
#include "kernels/cpu/dot_kernels.h"
#include "tests/unit/vector_targets.h"

namespace sparse_ffn::cpu {
namespace {

constexpr size_t kRows = 101;
constexpr size_t kMaxTokens = 9;

constexpr uint16_t kNan = 0x7fff;  // Of both types of two bytes.

// Random numbers of a type of two bytes.
struct Halves {
  Halves(size_t row_count, size_t col_count, DataType dtype,
         std::mt19937_64& random)
      : cols(col_count), bits(row_count * cols), values(bits.size()) {
    std::uniform_real_distribution<float> near_one(-2, 2);
    for (float& value : values) value = near_one(random);
    const Matrix floats = {values.data(), row_count, cols, DataType::kFloat32};
    const Matrix halves = {bits.data(), row_count, cols, dtype};
    Convert(floats, halves);
    Convert(halves, floats);
  }

  const size_t cols;
  std::vector<uint16_t> bits;  // [rows, cols]
  std::vector<float> values;   // What they stand for.
};

// Every vector target of this processor, with the hidden states as StatesType()
// has them and as floats.
class DotKernelsTest
    : public testing::TestWithParam<std::tuple<int64_t, DataType, bool>> {
 protected:
  void SetUp() override {
    hwy::SetSupportedTargetsForTest(std::get<0>(GetParam()));
    if (std::get<2>(GetParam()) &&
        StatesType(WeightsType()) == DataType::kFloat32) {
      GTEST_SKIP() << "has the hidden states as floats anyway";
    }
  }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }

  static DataType WeightsType() { return std::get<1>(GetParam()); }
  static DataType States() {
    return std::get<2>(GetParam()) ? StatesType(WeightsType())
                                   : DataType::kFloat32;
  }

  // Sums [tokens, kRows] of tokens first, first + 1, ... of `states`.
  static std::vector<float> Dots(const Halves& weights, const Halves& states,
                                 size_t first, size_t tokens,
                                 const std::vector<uint32_t>& neurons,
                                 const std::vector<float>& scores) {
    const size_t cols = weights.cols;
    const size_t padded = PaddedCols(cols);
    const size_t stride = StrideBytes(cols, WeightsType());
    const AlignedMemory packed_weights =
        *NewAlignedMemory(kRows * stride, "a test");
    std::memset(packed_weights.get(), 0, kRows * stride);
    for (size_t r = 0; r < kRows; ++r) {
      std::memcpy(packed_weights.get() + r * stride, &weights.bits[r * cols],
                  cols * 2);
    }
    const AlignedMemory x =
        *NewAlignedMemory(tokens * padded * DataTypeBytes(States()), "a test");
    const HiddenStates packed = {x.get(), tokens, padded, States()};
    PackStates({&states.bits[first * cols], tokens, cols, WeightsType()},
               packed);
    std::vector<float> sums(tokens * kRows);
    const DotTask task = {
        {packed_weights.get(), stride, padded, WeightsType(), false},
        packed,
        neurons.empty() ? nullptr : neurons.data(),
        scores.empty() ? nullptr : scores.data() + first * kRows,
        sums.data(),
        kRows};
    DotRows(task, 0, neurons.empty() ? kRows : neurons.size());
    return sums;
  }
};

TEST_P(DotKernelsTest, MatchesDoublesAndDoesNotDependOnTheBatch) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (size_t cols : {1, 8, 31, 32, 33, 64, 100, 520, 1536}) {
    const Halves weights(kRows, cols, WeightsType(), random);
    const Halves states(kMaxTokens, cols, WeightsType(), random);
    const std::vector<float> all = Dots(weights, states, 0, kMaxTokens, {}, {});
    for (size_t t = 0; t < kMaxTokens; ++t) {
      for (size_t r = 0; r < kRows; ++r) {
        double sum = 0;
        double magnitudes = 0;
        for (size_t c = 0; c < cols; ++c) {
          const double product = double{weights.values[r * cols + c]} *
                                 double{states.values[t * cols + c]};
          sum += product;
          magnitudes += std::abs(product);
        }
        ASSERT_NEAR(all[t * kRows + r], sum, 1e-6 * magnitudes)
            << cols << " columns, token " << t << ", row " << r;
      }
    }
    for (size_t tokens = 1; tokens < kMaxTokens; ++tokens) {
      const size_t first = kMaxTokens - tokens;
      const std::vector<float> some =
          Dots(weights, states, first, tokens, {}, {});
      EXPECT_EQ(std::memcmp(some.data(), all.data() + first * kRows,
                            some.size() * sizeof(float)),
                0)
          << cols << " columns, the last " << tokens << " tokens";
    }
  }
}

TEST_P(DotKernelsTest, ReadsOnlyRowsThatATokenNeeds) {
  constexpr size_t kCols = 96;
  // A third of the rows is for no token; of the others each token needs half,
  // some because its score is NaN.
  const auto needs = [](size_t t, size_t r) {
    return r % 3 != 0 && (r + t) % 2 == 0;
  };
  std::mt19937_64 random(1);
  Halves weights(kRows, kCols, WeightsType(), random);
  const Halves states(kMaxTokens, kCols, WeightsType(), random);
  for (size_t r = 0; r < kRows; r += 3) {
    std::fill_n(&weights.bits[r * kCols], kCols, kNan);
  }
  std::vector<float> scores(kMaxTokens * kRows, 0);
  for (size_t t = 0; t < kMaxTokens; ++t) {
    for (size_t r = 0; r < kRows; ++r) {
      if (r % 3 == 0) scores[t * kRows + r] = -0.0F;
      if (!needs(t, r)) continue;
      scores[t * kRows + r] =
          r % 5 == 0 ? std::numeric_limits<float>::quiet_NaN() : 1e-40F;
    }
  }
  std::vector<uint32_t> every_row(kRows);
  std::iota(every_row.begin(), every_row.end(), 0U);
  const std::vector<float> all = Dots(weights, states, 0, kMaxTokens, {}, {});
  for (const std::vector<uint32_t>& list : {every_row, {}}) {
    const std::vector<float> needed =
        Dots(weights, states, 0, kMaxTokens, list, scores);
    for (size_t t = 0; t < kMaxTokens; ++t) {
      for (size_t r = 0; r < kRows; ++r) {
        const size_t i = t * kRows + r;
        // Of those that no token needs, what Dots left there.
        EXPECT_TRUE(std::isfinite(needed[i])) << t << ", " << r;
        if (needs(t, r)) {
          EXPECT_EQ(needed[i], all[i]) << t << ", " << r;
        }
      }
    }
  }
}

TEST_P(DotKernelsTest, PassesOnWhatIsNotFinite) {
  constexpr size_t kCols = 64;
  std::mt19937_64 random(2);
  Halves weights(kRows, kCols, WeightsType(), random);
  Halves states(kMaxTokens, kCols, WeightsType(), random);
  states.bits[3 * kCols + 41] = kNan;
  weights.bits[5 * kCols + 40] = kNan;
  const std::vector<float> sums = Dots(weights, states, 0, kMaxTokens, {}, {});
  for (size_t t = 0; t < kMaxTokens; ++t) {
    for (size_t r = 0; r < kRows; ++r) {
      EXPECT_EQ(std::isnan(sums[t * kRows + r]), t == 3 || r == 5)
          << t << ", " << r;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Targets, DotKernelsTest,
    testing::Combine(testing::ValuesIn(VectorTargets()),
                     testing::Values(DataType::kFloat16, DataType::kBFloat16),
                     testing::Bool()),
    [](const auto& made) {
      return std::string(hwy::TargetName(std::get<0>(made.param))) + "_" +
             DataTypeName(std::get<1>(made.param)) +
             (std::get<2>(made.param) ? "_own_states" : "_floats");
    });

}  // namespace
}  // namespace sparse_ffn::cpu
