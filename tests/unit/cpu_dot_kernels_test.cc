#include <gtest/gtest.h>

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

namespace sparse_ffn::cpu {
namespace {

constexpr size_t kRows = 101;
constexpr size_t kMaxTokens = 9;

// A normal number of that type.
uint16_t RandomHalf(DataType dtype, std::mt19937_64& random) {
  const uint64_t bits = random();
  // An exponent near that of 1, a random mantissa and a random sign.
  if (dtype == DataType::kFloat16) {
    return static_cast<uint16_t>((bits % 8 + 11) << 10 | (bits >> 8 & 0x83ff));
  }
  return static_cast<uint16_t>((bits % 8 + 123) << 7 | (bits >> 8 & 0x807f));
}

double ValueOf(uint16_t half, DataType dtype) {
  const double sign = (half & 0x8000) != 0 ? -1 : 1;
  if (dtype == DataType::kFloat16) {
    return sign * std::ldexp((half & 0x3ff) + 1024, (half >> 10 & 31) - 25);
  }
  return sign * std::ldexp((half & 0x7f) + 128, (half >> 7 & 255) - 134);
}

// 2-byte elements, rows with the padding of a PackedMatrix.
struct Halves {
  Halves(size_t rows, size_t cols)
      : stride(StrideBytes(cols, DataType::kBFloat16)),
        memory(*NewAlignedMemory(rows * stride, "a test")) {
    std::memset(memory.get(), 0, rows * stride);
  }

  uint16_t get(size_t row, size_t col) const {
    uint16_t half = 0;
    std::memcpy(&half, memory.get() + row * stride + 2 * col, 2);
    return half;
  }
  void set(size_t row, size_t col, uint16_t half) {
    std::memcpy(memory.get() + row * stride + 2 * col, &half, 2);
  }

  size_t stride;
  AlignedMemory memory;
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
                                 size_t cols, size_t first, size_t tokens,
                                 const std::vector<uint32_t>& neurons,
                                 const std::vector<float>& scores) {
    const size_t padded = PaddedCols(cols);
    const AlignedMemory x =
        *NewAlignedMemory(tokens * padded * DataTypeBytes(States()), "a test");
    const HiddenStates packed = {x.get(), tokens, padded, States()};
    std::vector<uint16_t> rows;
    for (size_t t = first; t < first + tokens; ++t) {
      for (size_t c = 0; c < cols; ++c) rows.push_back(states.get(t, c));
    }
    PackStates({rows.data(), tokens, cols, WeightsType()}, packed);
    std::vector<float> sums(tokens * kRows);
    const DotTask task = {
        {weights.memory.get(), weights.stride, padded, WeightsType(), false},
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
    Halves weights(kRows, cols);
    Halves states(kMaxTokens, cols);
    for (size_t c = 0; c < cols; ++c) {
      for (size_t r = 0; r < kRows; ++r) {
        weights.set(r, c, RandomHalf(WeightsType(), random));
      }
      for (size_t t = 0; t < kMaxTokens; ++t) {
        states.set(t, c, RandomHalf(WeightsType(), random));
      }
    }
    const std::vector<float> all =
        Dots(weights, states, cols, 0, kMaxTokens, {}, {});
    for (size_t t = 0; t < kMaxTokens; ++t) {
      for (size_t r = 0; r < kRows; ++r) {
        double sum = 0;
        double magnitudes = 0;
        for (size_t c = 0; c < cols; ++c) {
          const double product = ValueOf(weights.get(r, c), WeightsType()) *
                                 ValueOf(states.get(t, c), WeightsType());
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
          Dots(weights, states, cols, first, tokens, {}, {});
      EXPECT_EQ(std::memcmp(some.data(), all.data() + first * kRows,
                            some.size() * sizeof(float)),
                0)
          << cols << " columns, the last " << tokens << " tokens";
    }
  }
}

TEST_P(DotKernelsTest, ReadsOnlyRowsThatATokenNeeds) {
  constexpr size_t kCols = 96;
  constexpr uint16_t kNan = 0x7fff;  // Of both types.
  // A third of the rows is for no token; of the others each token needs half,
  // some because its score is NaN.
  const auto needs = [](size_t t, size_t r) {
    return r % 3 != 0 && (r + t) % 2 == 0;
  };
  std::mt19937_64 random(1);
  Halves weights(kRows, kCols);
  Halves states(kMaxTokens, kCols);
  for (size_t c = 0; c < kCols; ++c) {
    for (size_t r = 0; r < kRows; ++r) {
      weights.set(r, c, r % 3 == 0 ? kNan : RandomHalf(WeightsType(), random));
    }
    for (size_t t = 0; t < kMaxTokens; ++t) {
      states.set(t, c, RandomHalf(WeightsType(), random));
    }
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
  const std::vector<float> all =
      Dots(weights, states, kCols, 0, kMaxTokens, {}, {});
  for (const std::vector<uint32_t>& list : {every_row, {}}) {
    const std::vector<float> needed =
        Dots(weights, states, kCols, 0, kMaxTokens, list, scores);
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
  constexpr uint16_t kNan = 0x7fff;
  std::mt19937_64 random(2);
  Halves weights(kRows, kCols);
  Halves states(kMaxTokens, kCols);
  for (size_t c = 0; c < kCols; ++c) {
    for (size_t r = 0; r < kRows; ++r) {
      weights.set(r, c, RandomHalf(WeightsType(), random));
    }
    for (size_t t = 0; t < kMaxTokens; ++t) {
      states.set(t, c, RandomHalf(WeightsType(), random));
    }
  }
  states.set(3, 41, kNan);
  weights.set(5, 40, kNan);
  const std::vector<float> sums =
      Dots(weights, states, kCols, 0, kMaxTokens, {}, {});
  for (size_t t = 0; t < kMaxTokens; ++t) {
    for (size_t r = 0; r < kRows; ++r) {
      EXPECT_EQ(std::isnan(sums[t * kRows + r]), t == 3 || r == 5)
          << t << ", " << r;
    }
  }
}

std::vector<int64_t> Targets() {
  std::vector<int64_t> targets;
  for (int64_t left = hwy::SupportedTargets() & HWY_TARGETS; left != 0;
       left &= left - 1) {
    targets.push_back(left & -left);
  }
  return targets;
}

INSTANTIATE_TEST_SUITE_P(
    Targets, DotKernelsTest,
    testing::Combine(testing::ValuesIn(Targets()),
                     testing::Values(DataType::kFloat16, DataType::kBFloat16),
                     testing::Bool()),
    [](const auto& made) {
      return std::string(hwy::TargetName(std::get<0>(made.param))) + "_" +
             DataTypeName(std::get<1>(made.param)) +
             (std::get<2>(made.param) ? "_own_states" : "_floats");
    });

}  // namespace
}  // namespace sparse_ffn::cpu
