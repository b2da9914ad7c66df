// .npy files: what NumPy writes is read, what is wrong is refused.
#include "client/npy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <string>
#include <vector>

#include "client/random_inputs.h"
#include "tests/unit/checkpoint_files.h"

namespace sparse_ffn {
namespace {

using testing::HasSubstr;

std::string NpyBytes(const std::string& header, const std::string& data,
                     char version = 1) {
  std::string bytes("\x93NUMPY", 6);
  bytes += {version, '\0', static_cast<char>(header.size() & 0xff),
            static_cast<char>(header.size() >> 8)};
  if (version != 1) bytes += {'\0', '\0'};
  return bytes + header + data;
}

std::string Header(const std::string& descr, const std::string& order,
                   const std::string& shape) {
  return "{'descr': " + descr + ", 'fortran_order': " + order +
         ", 'shape': " + shape + ", }   \n";
}

class NpyTest : public testing::Test {
 protected:
  absl::StatusOr<NpyArray> Read(const std::string& bytes) {
    WriteBytes(path_, bytes);
    return ReadNpy(path_);
  }
  std::string Error(const std::string& bytes) {
    return std::string(Read(bytes).status().message());
  }

  const TempFolder folder_;
  const std::string path_ = folder_.File("x.npy");
};

TEST_F(NpyTest, ReadsBothTypesVersionsAndOneDimension) {
  const std::string data = "0123456789abcdefghijklmn";
  for (const char version : {1, 2}) {
    absl::StatusOr<NpyArray> array =
        Read(NpyBytes(Header("'<f4'", "False", "(2, 3)"), data, version));
    ASSERT_TRUE(array.ok()) << array.status();
    EXPECT_EQ(array->rows, 2);
    EXPECT_EQ(array->cols, 3);
    EXPECT_EQ(array->dtype, DataType::kFloat32);
    EXPECT_EQ(std::memcmp(array->data.data(), data.data(), 24), 0);
  }
  absl::StatusOr<NpyArray> array =
      Read(NpyBytes(Header("'<f2'", "False", "(12,)"), data));
  ASSERT_TRUE(array.ok()) << array.status();
  EXPECT_EQ(array->rows, 1);
  EXPECT_EQ(array->cols, 12);
  EXPECT_EQ(array->dtype, DataType::kFloat16);
}

TEST_F(NpyTest, MalformedFilesAreErrors) {
  const std::string data(24, '\0');
  const struct {
    std::string bytes;
    const char* message;
  } kCases[] = {
      {"", "an .npy file"},
      {"\x93NUMPY", "an .npy file"},
      {std::string(200, 'x'), "an .npy file"},
      {NpyBytes(Header("'<f4'", "False", "(2, 3)"), data, 3), "version 1 or 2"},
      {NpyBytes(Header("'<f8'", "False", "(3,)"), data), "found \"'<f8'\""},
      {NpyBytes(Header("'>f4'", "False", "(2, 3)"), data), "little-endian"},
      {NpyBytes(Header("'<i4'", "False", "(2, 3)"), data), "little-endian"},
      {NpyBytes(Header("[('a', '<f4')]", "False", "(2, 3)"), data),
       "little-endian"},
      {NpyBytes(Header("'<f4'", "True", "(2, 3)"), data), "C order"},
      {NpyBytes(Header("'<f4'", "False", "(1, 2, 3)"), data), "one or two"},
      {NpyBytes(Header("'<f4'", "False", "()"), data), "one or two"},
      {NpyBytes(Header("'<f4'", "False", "(-2, 3)"), data), "one or two"},
      {NpyBytes(Header("'<f4'", "False", "(2.0, 3)"), data), "one or two"},
      {NpyBytes(Header("'<f4'", "False", "6"), data), "one or two"},
      {NpyBytes(Header("'<f4'", "False", "(99999999999999999999,)"), data),
       "one or two"},
      {NpyBytes(Header("'<f4'", "False", "(4611686018427387906, 3)"), data),
       "the bytes of shape"},
      {NpyBytes(Header("'<f4'", "False", "(2, 4)"), data), "found 24"},
      {NpyBytes(Header("'<f4'", "False", "(2, 2)"), data), "found 24"},
      {NpyBytes("{'descr': '<f4', 'shape': (2, 3)}", data), "fortran_order"},
      {NpyBytes("{'descr': '<f4', 'descr': '<f4'}", data), "'descr' once"},
      {NpyBytes("{'descr' '<f4'}", data), "a value for 'descr'"},
      {NpyBytes("{'descr': '<f4'", data), "a value for 'descr'"},
      {NpyBytes(std::string(300, '\0'), data), "'descr' once"},
      {NpyBytes(Header("'<f4'", "False", "(2, 3)"), "").substr(0, 40),
       "a header of at most 30 bytes"},
      {std::string("\x93NUMPY\x02\x00\xff\xff\xff\xff{}{}", 16),
       "found 4294967295"},
  };
  for (const auto& [bytes, message] : kCases) {
    SCOPED_TRACE(bytes.substr(0, 90));
    EXPECT_THAT(Error(bytes), HasSubstr(path_));
    EXPECT_THAT(Error(bytes), HasSubstr(message));
  }
}

TEST_F(NpyTest, EveryTruncationIsAnError) {
  const std::string good =
      NpyBytes(Header("'<f4'", "False", "(2, 3)"), std::string(24, '\0'));
  ASSERT_TRUE(Read(good).ok());
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(Read(good.substr(0, size)).ok()) << size << " bytes";
  }
}

TEST_F(NpyTest, HugeShapesTakeNoMemory) {
  WriteBytes(path_, NpyBytes(Header("'<f4'", "False", "(1000000, 1000000)"),
                             std::string(24, '\0')));
  EXPECT_TRUE(SucceedsWithin(4 << 20, [this] { return !ReadNpy(path_).ok(); }));
}

TEST_F(NpyTest, AFifoIsAnErrorAtOnce) {
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  const NpyArray empty;
  EXPECT_THAT(std::string(ReadNpy(path_).status().message()),
              HasSubstr("found a FIFO"));
  EXPECT_THAT(std::string(WriteNpy(empty.view(), path_).message()),
              HasSubstr("expected a regular file"));
  EXPECT_TRUE(absl::IsNotFound(ReadNpy(folder_.File("absent")).status()));
}

TEST_F(NpyTest, WhatWasWrittenComesBack) {
  const std::vector<float> values = RandomInputs(7, 33, 5);
  const ConstMatrix matrix = {values.data(), 7, 33, DataType::kFloat32};
  ASSERT_EQ(WriteNpy(matrix, path_), absl::OkStatus());
  EXPECT_EQ(ReadBytes(path_).size() % 64, (7 * 33 * 4) % 64);
  absl::StatusOr<NpyArray> array = ReadNpy(path_);
  ASSERT_TRUE(array.ok()) << array.status();
  EXPECT_EQ(array->rows, 7);
  EXPECT_EQ(array->cols, 33);
  EXPECT_EQ(std::memcmp(array->data.data(), values.data(), matrix.bytes()), 0);
  EXPECT_TRUE(absl::IsInvalidArgument(
      WriteNpy({values.data(), 1, 2, DataType::kBFloat16}, path_)));
}

TEST_F(NpyTest, HiddenStatesMustFitTheModel) {
  const std::vector<float> values(6, 1.0F);
  ASSERT_EQ(WriteNpy({values.data(), 2, 3, DataType::kFloat32}, path_),
            absl::OkStatus());
  EXPECT_EQ(ReadHiddenStates(path_, 3)->rows, 2);
  EXPECT_EQ(ReadHiddenStates(path_, 4).status().message(),
            path_ +
                ": expected at least one row of hidden size 4, found "
                "[2, 3]");
  ASSERT_EQ(WriteNpy({values.data(), 0, 3, DataType::kFloat32}, path_),
            absl::OkStatus());
  EXPECT_TRUE(absl::IsInvalidArgument(ReadHiddenStates(path_, 3).status()));
  EXPECT_TRUE(
      absl::IsNotFound(ReadHiddenStates(folder_.File("absent"), 3).status()));
}

TEST(RandomInputsTest, RowsAreExactInEveryTypeAndDoNotDependOnTheirNumber) {
  for (const size_t hidden : {size_t{1}, size_t{7}, size_t{1536}}) {
    const std::vector<float> inputs = RandomInputs(50, hidden, 3);
    for (const DataType dtype : {DataType::kFloat16, DataType::kBFloat16}) {
      std::vector<uint16_t> narrow(inputs.size());
      std::vector<float> back(inputs.size());
      Convert({inputs.data(), 50, hidden, DataType::kFloat32},
              {narrow.data(), 50, hidden, dtype});
      Convert({narrow.data(), 50, hidden, dtype},
              {back.data(), 50, hidden, DataType::kFloat32});
      EXPECT_EQ(inputs, back);
    }
    double sum = 0;
    for (const float value : inputs) sum += value;
    EXPECT_GE(sum, 0.5 * static_cast<double>(inputs.size()));
    const std::vector<float> fewer = RandomInputs(3, hidden, 3);
    EXPECT_EQ(fewer, std::vector<float>(
                         inputs.begin(),
                         inputs.begin() + static_cast<int64_t>(3 * hidden)));
    EXPECT_NE(inputs, RandomInputs(50, hidden, 4));
  }
}

TEST(RandomInputsTest, MeanAndVarianceAreOne) {
  const std::vector<float> inputs = RandomInputs(64, 4096, 11);
  double sum = 0;
  double squares = 0;
  for (const float value : inputs) {
    sum += value;
    squares += (value - 1.0) * (value - 1.0);
  }
  const auto count = static_cast<double>(inputs.size());
  // Five standard errors of 2^18 draws.
  EXPECT_NEAR(sum / count, 1, 5 / 512.0);
  EXPECT_NEAR(squares / count, 1, 5 * 1.5 / 512.0);
}

}  // namespace
}  // namespace sparse_ffn
