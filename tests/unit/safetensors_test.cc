// The safetensors reader and writer: what is well-formed comes back whole, what
// is not gives an error that names the file.
#include "server/checkpoint/safetensors.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/checkpoint/safetensors_writer.h"
#include "tests/sanitized.h"
#include "tests/unit/checkpoint_files.h"

namespace sparse_ffn {
namespace {

using testing::HasSubstr;

bool KeepAll(absl::string_view) { return true; }

std::string Repeat(const std::string& text, size_t times) {
  std::string result;
  result.reserve(text.size() * times);
  for (size_t i = 0; i < times; ++i) result += text;
  return result;
}

std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

// The error of opening the file or of asking for the tensor "w".
absl::Status StatusOf(const std::string& path) {
  absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(path, KeepAll);
  if (!file.ok()) return file.status();
  return file->Tensor("w").status();
}

struct Malformed {
  const char* what;
  std::string json;
  size_t data_bytes;
  const char* message;
};

std::string W(const std::string& fields) {
  return absl::StrCat("{\"w\":{", fields, "}}");
}

std::vector<Malformed> MalformedFiles() {
  const std::string f32 = R"("dtype":"F32",)";
  const std::string shape = R"("shape":[2,3],)";
  const std::string offsets = R"("data_offsets":[0,24])";
  const std::string good = f32 + shape + offsets;
  const auto ranges = [&](const char* a, const char* b) {
    const std::string start = R"("dtype":"F32","shape":[2,3],"data_offsets":)";
    return absl::StrCat("{\"w\":{", start, a, "},\"v\":{", start, b, "}}");
  };
  return {
      {"no object", "[]", 0, "expected an object of tensors, found an array"},
      {"a number", "12345678", 0, "expected an object of tensors"},
      {"no JSON", "{\"w\":}", 0, "expected JSON"},
      {"cut JSON", "{\"w\":{\"dtype\":\"F32\"", 0, "expected JSON"},
      {"text after it", "{} {}", 0, "expected JSON"},
      {"a zero byte after it", std::string("{}\0", 3), 0, "zero byte"},
      {"not UTF-8", "{\"w\xff\xfe\":{}}", 0, "expected JSON"},
      {"lone surrogate", R"({"w\ud800":{}})", 0, "expected JSON"},
      {"a tensor that is a number", "{\"w\":1}", 0, "expected an object"},
      {"a tensor that is an array", "{\"w\":[]}", 0, "expected an object"},
      {"nothing in a tensor", "{\"w\":{}}", 0, "found not all of them"},
      {"no dtype", W(shape + offsets), 24, "found not all of them"},
      {"no shape", W(f32 + offsets), 24, "found not all of them"},
      {"no offsets", W(R"("dtype":"F32","shape":[2,3])"), 24,
       "found not all of them"},
      {"dtype a number", W(R"("dtype":4,)" + shape + offsets), 24,
       "expected a string as dtype"},
      {"shape a string", W(f32 + R"("shape":"2,3",)" + offsets), 24,
       "expected an array as shape"},
      {"shape an object", W(f32 + R"("shape":{},)" + offsets), 24,
       "expected an array as shape"},
      {"offsets a number", W(f32 + shape + R"("data_offsets":24)"), 24,
       "expected [begin, end]"},
      {"unknown entry", W(good + R"(,"strides":[3,1])"), 24, "\"strides\""},
      {"entry twice", W(good + R"(,"dtype":"F16")"), 24, "dtype once"},
      {"name twice", absl::StrCat("{\"w\":{", good, "},\"w\":{", good, "}}"),
       24, "its name once"},
      {"name twice in other spelling",
       R"({"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
       R"("\u0077":{"dtype":"F32","shape":[2,3],"data_offsets":[24,48]}})",
       48, "its name once"},
      {"metadata twice", R"({"__metadata__":{},"__metadata__":{}})", 0,
       "one __metadata__"},
      {"metadata of numbers", R"({"__metadata__":{"a":1}})", 0,
       "an object of strings"},
      {"metadata an array", R"({"__metadata__":[]})", 0, "expected an object"},
      {"nested metadata", R"({"__metadata__":{"a":{}}})", 0,
       "an object of strings"},
      {"negative size", W(f32 + R"("shape":[-2,3],)" + offsets), 24,
       "found -2"},
      {"float size", W(f32 + R"("shape":[2.0,3],)" + offsets), 24,
       "unsigned 64-bit"},
      {"size 1e2", W(f32 + R"("shape":[1e2,3],)" + offsets), 24,
       "unsigned 64-bit"},
      {"size 1e400", W(f32 + R"("shape":[1e400,3],)" + offsets), 24,
       "expected JSON"},
      {"size 2^64", W(f32 + R"("shape":[18446744073709551616,3],)" + offsets),
       24, "unsigned 64-bit"},
      {"size null", W(f32 + R"("shape":[null,3],)" + offsets), 24,
       "found null"},
      {"size true", W(f32 + R"("shape":[true,3],)" + offsets), 24,
       "found true"},
      {"nested shape", W(f32 + R"("shape":[[2],3],)" + offsets), 24,
       "expected an array as shape"},
      {"many dimensions", W(f32 + R"("shape":[1,1,1,1,1,1,1,2,3],)" + offsets),
       24, "at most 8 dimensions"},
      {"product overflows to 24",
       W(f32 + R"("shape":[4611686018427387906,3],)" + offsets), 24,
       "2^64 or more"},
      {"product overflows to 0",
       W(f32 + R"("shape":[9223372036854775808,2],"data_offsets":[0,0])"), 0,
       "2^64 or more"},
      {"bytes too few", W(f32 + R"("shape":[2,4],)" + offsets), 24,
       "expected the 32 bytes of shape [2, 4] F32, found 24"},
      {"bytes too many", W(f32 + R"("shape":[2,2],)" + offsets), 24,
       "expected the 16 bytes"},
      {"one dimension", W(f32 + R"("shape":[6],)" + offsets), 24,
       "expected 2 dimensions"},
      {"no dimension", W(f32 + R"("shape":[],"data_offsets":[0,4])"), 4,
       "expected 2 dimensions"},
      {"F64", W(R"("dtype":"F64","shape":[1,3],)" + offsets), 24,
       "found \"F64\""},
      {"I8", W(R"("dtype":"I8","shape":[4,6],)" + offsets), 24, "found \"I8\""},
      {"F8", W(R"("dtype":"F8_E4M3","shape":[4,6],)" + offsets), 24,
       "found \"F8_E4M3\""},
      {"lower case", W(R"("dtype":"f32",)" + shape + offsets), 24,
       "found \"f32\""},
      {"one offset", W(f32 + shape + R"("data_offsets":[24])"), 24,
       "2 data_offsets"},
      {"three offsets", W(f32 + shape + R"("data_offsets":[0,12,24])"), 24,
       "at most 2 data_offsets"},
      {"negative offset", W(f32 + shape + R"("data_offsets":[-24,0])"), 24,
       "found -24"},
      {"minus zero", W(f32 + shape + R"("data_offsets":[-0,24])"), 24,
       "unsigned 64-bit"},
      {"begin after end", W(f32 + shape + R"("data_offsets":[24,0])"), 24,
       "begin <= end <= 24"},
      {"end after the file", W(f32 + shape + R"("data_offsets":[0,25])"), 24,
       "begin <= end <= 24 in data_offsets, found [0, 25]"},
      {"end far after the file",
       W(f32 + shape + R"("data_offsets":[0,18446744073709551615])"), 24,
       "begin <= end <= 24"},
      {"does not begin at 0", W(f32 + shape + R"("data_offsets":[4,28])"), 28,
       "beginning at byte 0 of the data, found the next at 4"},
      {"odd offset", W(f32 + shape + R"("data_offsets":[1,25])"), 25,
       "beginning at byte 0"},
      {"data after the last", W(good), 25, "end of the data at byte 25"},
      {"data and no tensors", "{}", 8, "end of the data at byte 8"},
      {"overlap", ranges("[0,24]", "[20,44]"), 44, "beginning at byte 24"},
      {"the same data twice", ranges("[0,24]", "[0,24]"), 24,
       "beginning at byte 24"},
      {"a hole", ranges("[0,24]", "[28,52]"), 52, "beginning at byte 24"},
      {"deep arrays", W(f32 + R"("shape":)" + Repeat("[", 100000)), 0,
       "nesting depth"},
      {"deep objects", Repeat("{\"w\":", 100000), 0, "nesting depth"},
      {"a long number", W(f32 + R"("shape":[)" + Repeat("9", 2 << 20)), 0,
       "at most 1048576 bytes"},
      {"a long name", "{\"" + Repeat("w", 2 << 20) + "\":{}}", 0,
       "at most 1048576 bytes"},
  };
}

TEST(SafetensorsTest, MalformedHeadersAreErrors) {
  const TempFolder folder;
  const std::string path = folder.File("model.safetensors");
  for (const Malformed& file : MalformedFiles()) {
    SCOPED_TRACE(file.what);
    WriteBytes(path,
               SafetensorsBytes(file.json, std::string(file.data_bytes, '\0')));
    const absl::Status status = StatusOf(path);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(Message(status), HasSubstr(path));
    EXPECT_THAT(Message(status), HasSubstr(file.message));
    EXPECT_LT(status.message().size(), 1000);
  }
}

TEST(SafetensorsTest, LyingHeaderLengthsAreErrors) {
  const TempFolder folder;
  const std::string path = folder.File("model.safetensors");
  const std::string good = SafetensorsBytes(
      R"({"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})",
      std::string(24, '\0'));
  WriteBytes(path, good);
  EXPECT_EQ(StatusOf(path), absl::OkStatus());
  for (const uint64_t length :
       {uint64_t{0}, uint64_t{1}, uint64_t{good.size()}, uint64_t{100'000'001},
        uint64_t{1} << 32, uint64_t{1} << 63, ~uint64_t{0}}) {
    SCOPED_TRACE(length);
    std::string bytes = good;
    std::memcpy(bytes.data(), &length, sizeof(length));
    WriteBytes(path, bytes);
    EXPECT_THAT(Message(StatusOf(path)), HasSubstr("expected a header of"));
  }
}

TEST(SafetensorsTest, EveryTruncationIsAnError) {
  const TempFolder folder;
  const std::string path = folder.File("model.safetensors");
  const std::string good =
      SafetensorsBytes({{"w", "F32", {2, 3}, std::string(24, 'x')}});
  for (size_t size = 0; size < good.size(); ++size) {
    WriteBytes(path, good.substr(0, size));
    EXPECT_FALSE(StatusOf(path).ok()) << size << " bytes";
  }
}

TEST(SafetensorsTest, WhatIsNoRegularFileIsAnErrorAtOnce) {
  const TempFolder folder;
  const std::string fifo = folder.File("fifo");
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_THAT(Message(StatusOf(fifo)), HasSubstr("found a FIFO"));
  EXPECT_THAT(Message(StatusOf(folder.path())), HasSubstr("found a directory"));
  EXPECT_THAT(Message(StatusOf("/dev/zero")), HasSubstr("found a device"));
  EXPECT_TRUE(absl::IsNotFound(StatusOf(folder.File("absent"))));

  const std::string path = folder.File("socket");
  const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  ASSERT_LT(path.size(), sizeof(address.sun_path));
  std::memcpy(address.sun_path, path.data(), path.size());
  ASSERT_EQ(bind(listener, reinterpret_cast<const sockaddr*>(&address),
                 sizeof(address)),
            0);
  EXPECT_THAT(Message(StatusOf(path)), HasSubstr("found a socket"));
  close(listener);
}

TEST(SafetensorsTest, HostileFilesTakeFewMebibytes) {
  const TempFolder folder;
  const std::string path = folder.File("model.safetensors");
  const auto refused_within_8_mib = [&path] {
    return SucceedsWithin(8 << 20, [&path] { return !StatusOf(path).ok(); });
  };
  // A header that is one hole of 99 MB.
  const uint64_t length = 99'000'000;
  std::string start(8, '\0');
  std::memcpy(start.data(), &length, sizeof(length));
  WriteBytes(path, start);
  ASSERT_EQ(truncate(path.c_str(), 200'000'000), 0);
  EXPECT_TRUE(refused_within_8_mib());
  // Headers of 30 MB that go wrong early; less where memory is not limited.
  const size_t size = kSanitized ? 300'000 : 30'000'000;
  for (const std::string& json :
       {Repeat("[", size), "{\"" + Repeat("a", size) + "\":{}}",
        "{\"w\":{\"shape\":[" + Repeat("1", size) + "]}}",
        Repeat("\t", size)}) {
    WriteBytes(path, SafetensorsBytes(json, ""));
    EXPECT_TRUE(refused_within_8_mib()) << json.substr(0, 20);
  }
  // A shape of 2^63 elements in a file of a few bytes.
  WriteBytes(path, SafetensorsBytes(
                       W(R"("dtype":"F32","shape":[9223372036854775807,1],)"
                         R"("data_offsets":[0,24])"),
                       std::string(24, '\0')));
  EXPECT_TRUE(refused_within_8_mib());
}

TEST(SafetensorsTest, KeepsOnlyWhatIsAskedFor) {
  const TempFolder folder;
  const std::string path = folder.File("model.safetensors");
  WriteBytes(path, SafetensorsBytes({{"other", "I64", {3}, std::string(24, 0)},
                                     {"w", "BF16", {1, 2}, "abcd"},
                                     {"empty", "F32", {0, 7}, ""}}));
  absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(
      path, [](absl::string_view name) { return name == "w"; });
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->tensors().size(), 1);
  EXPECT_TRUE(absl::IsNotFound(file->Tensor("other").status()));
  absl::StatusOr<ConstMatrix> view = file->Tensor("w");
  ASSERT_TRUE(view.ok()) << view.status();
  EXPECT_EQ(view->rows, 1);
  EXPECT_EQ(view->cols, 2);
  EXPECT_EQ(view->dtype, DataType::kBFloat16);
  EXPECT_EQ(std::memcmp(view->data, "abcd", 4), 0);
}

TEST(SafetensorsTest, WhatTheWriterWroteComesBack) {
  const TempFolder folder;
  const std::string path = folder.File("model.safetensors");
  const std::vector<TensorSpec> specs = {
      {"a \"quoted\" name", DataType::kFloat16, {2, 5}},
      {"w", DataType::kFloat32, {3, 2}}};
  absl::StatusOr<SafetensorsWriter> writer =
      SafetensorsWriter::Create(path, specs);
  ASSERT_TRUE(writer.ok()) << writer.status();
  const std::string data = "0123456789abcdefghijABCDEFGHIJKLMNOPQRSTUVWX";
  EXPECT_TRUE(absl::IsNotFound(StatusOf(path))) << "there before Finish";
  EXPECT_EQ(writer->Append(data.data(), 7), absl::OkStatus());
  EXPECT_TRUE(absl::IsFailedPrecondition(writer->Finish()));
  EXPECT_EQ(writer->Append(data.data() + 7, 37), absl::OkStatus());
  EXPECT_TRUE(absl::IsFailedPrecondition(writer->Append("x", 1)));
  EXPECT_EQ(writer->Finish(), absl::OkStatus());

  absl::StatusOr<SafetensorsFile> opened = SafetensorsFile::Open(path, KeepAll);
  ASSERT_TRUE(opened.ok()) << opened.status();
  const SafetensorsFile file = *std::move(opened);
  absl::StatusOr<ConstMatrix> view = file.Tensor("w");
  ASSERT_TRUE(view.ok()) << view.status();
  EXPECT_EQ(std::memcmp(view->data, data.data() + 20, 24), 0);
  char row[8];
  EXPECT_EQ(file.ReadRows(*view, 1, 1, row), absl::OkStatus());
  EXPECT_EQ(std::string(row, 8), "IJKLMNOP");
  EXPECT_TRUE(file.Tensor(specs[0].name).ok());
}

TEST(SafetensorsTest, AnUnfinishedWriterLeavesNothing) {
  const TempFolder folder;
  const std::string path = folder.File("model.safetensors");
  WriteBytes(path, "what was there before");
  {
    absl::StatusOr<SafetensorsWriter> writer =
        SafetensorsWriter::Create(path, {{"w", DataType::kFloat32, {1, 1}}});
    ASSERT_TRUE(writer.ok()) << writer.status();
  }
  EXPECT_EQ(ReadBytes(path), "what was there before");
  EXPECT_EQ(unlink(path.c_str()), 0);
  EXPECT_EQ(rmdir(folder.path().c_str()), 0) << "the folder is not empty";
}

TEST(SafetensorsTest, AFileThatShrinksIsAnErrorWhenRead) {
  const TempFolder folder;
  const std::string path = folder.File("model.safetensors");
  const std::string bytes =
      SafetensorsBytes({{"w", "F32", {1024, 1024}, std::string(4 << 20, 'x')}});
  WriteBytes(path, bytes);
  absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(path, KeepAll);
  ASSERT_TRUE(file.ok()) << file.status();
  absl::StatusOr<ConstMatrix> view = file->Tensor("w");
  ASSERT_TRUE(view.ok()) << view.status();
  std::string rows(8192, '\0');
  EXPECT_EQ(file->ReadRows(*view, 1000, 2, rows.data()), absl::OkStatus());
  ASSERT_EQ(truncate(path.c_str(), 4096), 0);
  const absl::Status status = file->ReadRows(*view, 1000, 2, rows.data());
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(Message(status), HasSubstr(path));
}

}  // namespace
}  // namespace sparse_ffn
