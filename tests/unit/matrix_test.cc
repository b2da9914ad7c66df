#include "kernels/matrix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "hwy/targets.h"
#include "tests/unit/vector_targets.h"

namespace sparse_ffn {
namespace {

using Bytes = std::vector<uint8_t>;

constexpr DataType kTypes[] = {DataType::kFloat32, DataType::kFloat16,
                               DataType::kBFloat16};

// The references decode and round number by number, in double, after the
// definition of the formats; no bit of theirs is shared with the product.

double HalfValue(uint16_t bits) {
  const int exponent = (bits >> 10) & 0x1f;
  const int mantissa = bits & 0x3ff;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  if (exponent < 31) return sign * std::ldexp(1024 + mantissa, exponent - 25);
  return mantissa == 0 ? sign * std::numeric_limits<double>::infinity()
                       : std::numeric_limits<double>::quiet_NaN();
}

float BFloat16Value(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// Nearest number of a format with `digits` significant bits, least exponent
// `least` and largest finite value `largest`; ties to even.
double RoundTo(double value, int digits, int least, double largest) {
  if (value == 0 || !std::isfinite(value)) return value;
  int exponent = 0;
  std::frexp(value, &exponent);
  const double unit = std::ldexp(1.0, std::max(exponent - digits, least));
  const double rounded = std::nearbyint(value / unit) * unit;
  if (std::abs(rounded) <= largest) return rounded;
  return std::copysign(std::numeric_limits<double>::infinity(), value);
}

double RoundToType(double value, DataType type) {
  switch (type) {
    case DataType::kFloat16:
      return RoundTo(value, 11, -24, 65504);
    case DataType::kBFloat16:
      return RoundTo(value, 8, -133, std::ldexp(255, 120));
    case DataType::kFloat32:
      break;
  }
  return value;
}

double ValueAt(const uint8_t* data, DataType type, size_t i) {
  if (type == DataType::kFloat32) {
    float value;
    std::memcpy(&value, data + 4 * i, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, data + 2 * i, 2);
  return type == DataType::kFloat16 ? HalfValue(bits) : BFloat16Value(bits);
}

// Equal numbers with equal signs, or both NaN.
bool Same(double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return a == b && std::signbit(a) == std::signbit(b);
}

// Interesting and random bits of `type`.
Bytes Samples(DataType type, size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes bytes(count * DataTypeBytes(type));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  if (type != DataType::kFloat32) return bytes;
  // Half of the floats near what float16 can hold, many of them on a tie.
  for (size_t i = 0; i < count; i += 2) {
    const int exponent = static_cast<int>(random() % 48) - 30;
    const auto mantissa = static_cast<double>(random() % 8192 + 8192);
    const auto value = static_cast<float>(std::ldexp(mantissa, exponent - 13) *
                                          (random() % 2 == 0 ? 1 : -1));
    std::memcpy(&bytes[4 * i], &value, 4);
  }
  return bytes;
}

// Every vector target of this processor in turn.
class MatrixTest : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { hwy::SetSupportedTargetsForTest(GetParam()); }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }

  static void ExpectConverts(const Bytes& source, DataType from, DataType to,
                             size_t count, size_t offset) {
    Bytes in(offset + source.size());
    std::copy(source.begin(), source.end(),
              in.begin() + static_cast<ptrdiff_t>(offset));
    const size_t out_bytes = count * DataTypeBytes(to);
    constexpr uint8_t kGuard = 0xa5;
    Bytes out(offset + out_bytes + 1, kGuard);
    Convert({in.data() + offset, 1, count, from},
            {out.data() + offset, 1, count, to});
    EXPECT_EQ(out.back(), kGuard);
    for (size_t i = 0; i < count; ++i) {
      const double value = ValueAt(source.data(), from, i);
      const double got = ValueAt(out.data() + offset, to, i);
      ASSERT_TRUE(Same(got, RoundToType(value, to)))
          << DataTypeName(from) << " to " << DataTypeName(to) << ", element "
          << i << " of " << count << ": " << value << " became " << got;
    }
  }
};

TEST_P(MatrixTest, ConvertsEveryHalf) {
  Bytes all(size_t{65536} * 2);
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    std::memcpy(&all[size_t{2} * bits], &half, 2);
  }
  for (DataType from : {DataType::kFloat16, DataType::kBFloat16}) {
    for (DataType to : kTypes) ExpectConverts(all, from, to, 65536, 0);
  }
}

TEST_P(MatrixTest, RoundsRandomFloatsToNearestEven) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  constexpr size_t kCount = 200000;
  const Bytes floats = Samples(DataType::kFloat32, kCount, seed);
  for (DataType to : kTypes) {
    ExpectConverts(floats, DataType::kFloat32, to, kCount, 0);
  }
}

TEST_P(MatrixTest, ConvertsAnyLengthAtAnyAddress) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  for (size_t count = 0; count < 70; ++count) {
    for (DataType from : kTypes) {
      const Bytes source = Samples(from, count, seed + count);
      for (DataType to : kTypes) {
        for (size_t offset : {0, 1, 3}) {
          ExpectConverts(source, from, to, count, offset);
        }
      }
    }
  }
}

TEST_P(MatrixTest, RoundsAtTheEdgesOfTheTypes) {
  struct Case {
    float value;
    DataType to;
    uint16_t bits;
  };
  const float infinity = std::numeric_limits<float>::infinity();
  const Case cases[] = {
      {65504, DataType::kFloat16, 0x7bff},
      {std::nextafter(65520.0F, 0.0F), DataType::kFloat16, 0x7bff},
      {65520, DataType::kFloat16, 0x7c00},
      {-65520, DataType::kFloat16, 0xfc00},
      {infinity, DataType::kFloat16, 0x7c00},
      {0x1p-14F, DataType::kFloat16, 0x0400},
      {0x1.ff8p-15F, DataType::kFloat16, 0x03ff},
      {0x1.ffcp-15F, DataType::kFloat16, 0x0400},
      {0x1p-25F, DataType::kFloat16, 0x0000},
      {0x1.000002p-25F, DataType::kFloat16, 0x0001},
      {0x1.8p-24F, DataType::kFloat16, 0x0002},
      {-0.0F, DataType::kFloat16, 0x8000},
      {1.0F, DataType::kBFloat16, 0x3f80},
      {0x1.01p0F, DataType::kBFloat16, 0x3f80},
      {0x1.03p0F, DataType::kBFloat16, 0x3f82},
      {0x1.010002p0F, DataType::kBFloat16, 0x3f81},
      {0x1.fffffep127F, DataType::kBFloat16, 0x7f80},
      {-infinity, DataType::kBFloat16, 0xff80},
      {0x1p-149F, DataType::kBFloat16, 0x0000},
  };
  for (const Case& c : cases) {
    uint16_t bits = 0;
    Convert({&c.value, 1, 1, DataType::kFloat32}, {&bits, 1, 1, c.to});
    EXPECT_EQ(bits, c.bits) << c.value << " to " << DataTypeName(c.to);
  }
}

TEST_P(MatrixTest, KeepsNaN) {
  for (uint32_t bits : {0x7f800001U, 0x7fc00000U, 0xffffffffU, 0x7f80ffffU}) {
    for (DataType to : kTypes) {
      const auto value = std::bit_cast<float>(bits);
      uint32_t out = 0;
      Convert({&value, 1, 1, DataType::kFloat32}, {&out, 1, 1, to});
      EXPECT_TRUE(
          std::isnan(ValueAt(reinterpret_cast<const uint8_t*>(&out), to, 0)))
          << std::hex << bits << " to " << DataTypeName(to);
    }
  }
}

TEST_P(MatrixTest, ConvertsInPlaceToTheSameType) {
  std::vector<float> values = {1, 2, 3};
  Convert({values.data(), 1, 3, DataType::kFloat32},
          {values.data(), 1, 3, DataType::kFloat32});
  EXPECT_THAT(values, testing::ElementsAre(1, 2, 3));
}

TEST_P(MatrixTest, FindsTheFirstNonFiniteElement) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  for (DataType type : kTypes) {
    for (DataType as : kTypes) {
      for (size_t count = 0; count < 50; ++count) {
        Bytes data = Samples(type, count + 1, seed + count);
        int64_t expected = -1;
        for (size_t i = 0; i < count && expected < 0; ++i) {
          if (!std::isfinite(RoundToType(ValueAt(data.data(), type, i), as))) {
            expected = static_cast<int64_t>(i);
          }
        }
        data.insert(data.begin(), 0);  // Unaligned.
        ASSERT_EQ(FindNonFinite({data.data() + 1, 1, count, type}, as),
                  expected)
            << count << " of " << DataTypeName(type) << " as "
            << DataTypeName(as);
      }
    }
  }
}

TEST_P(MatrixTest, FindsNonFiniteAtEveryPlace) {
  for (size_t count = 1; count < 40; ++count) {
    std::vector<float> values(count, -1e30F);
    for (size_t i = 0; i < count; ++i) {
      EXPECT_EQ(FindNonFinite({values.data(), 1, count, DataType::kFloat32},
                              DataType::kBFloat16),
                -1);
      values[i] = 0x1.fffffep127F;  // Finite, but not as bfloat16.
      EXPECT_EQ(FindNonFinite({values.data(), 1, count, DataType::kFloat32},
                              DataType::kFloat32),
                -1);
      EXPECT_EQ(FindNonFinite({values.data(), 1, count, DataType::kFloat32},
                              DataType::kBFloat16),
                static_cast<int64_t>(i));
      values[i] = -1e30F;
    }
  }
}

TEST(DataTypeTest, IsKnownByNameAndShortName) {
  for (DataType type : kTypes)
    EXPECT_EQ(ParseDataType(DataTypeName(type)), type);
  EXPECT_EQ(ParseDataType("fp32"), DataType::kFloat32);
  EXPECT_EQ(ParseDataType("fp16"), DataType::kFloat16);
  EXPECT_EQ(ParseDataType("bf16"), DataType::kBFloat16);
  for (const char* name : {"", "int8", "float", "Float32", "float32 "}) {
    EXPECT_EQ(ParseDataType(name), std::nullopt) << name;
  }
}

TEST_P(MatrixTest, KnowsTheLeastInfiniteMagnitude) {
  EXPECT_EQ(LeastInfinite(DataType::kFloat16), 65520);
  EXPECT_TRUE(std::isinf(LeastInfinite(DataType::kFloat32)));
  for (DataType type : {DataType::kFloat16, DataType::kBFloat16}) {
    const float least = LeastInfinite(type);
    EXPECT_TRUE(std::isinf(RoundToType(least, type)));
    EXPECT_TRUE(std::isfinite(RoundToType(std::nextafter(least, 0.0F), type)));
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, MatrixTest,
                         testing::ValuesIn(VectorTargets()),
                         [](const testing::TestParamInfo<int64_t>& target) {
                           return std::string(hwy::TargetName(target.param));
                         });

}  // namespace
}  // namespace sparse_ffn
