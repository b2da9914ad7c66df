#include "server/path_costs_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/unit/checkpoint_files.h"

namespace sparse_ffn {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

FfnConfig Config() {
  FfnConfig config;
  config.hidden_size = 64;
  config.intermediate_size = 96;
  config.max_batch_tokens = 8;
  config.weights_dtype = DataType::kFloat16;
  config.activation = Activation::kFatRelu;
  return config;
}

class PathCostsFileTest : public testing::Test {
 protected:
  // The message for a file of such text; empty where it is read.
  std::string MessageFor(const std::string& text) {
    WriteBytes(path_, text);
    const auto costs = ReadPathCosts(path_, Config(), "gpu");
    if (costs.ok()) return "";
    EXPECT_EQ(costs.status().code(), absl::StatusCode::kInvalidArgument);
    std::string message(costs.status().message());
    EXPECT_THAT(message, StartsWith(path_ + ": "));
    EXPECT_THAT(message, Not(HasSubstr("\n")));
    return message;
  }

  // A good file, with `from` in its text replaced.
  std::string With(const std::string& from, const std::string& to) {
    EXPECT_TRUE(WritePathCosts(path_, Config(), "gpu",
                               {{FfnPath::kDense, 1, 0, 77.5},
                                {FfnPath::kSparse, 1, 0.25, 50}})
                    .ok());
    const std::string text = ReadBytes(path_);
    EXPECT_THAT(text, HasSubstr(from));
    return absl::StrReplaceAll(text, {{from, to}});
  }

  TempFolder folder_;
  const std::string path_ = folder_.File("costs.json");
};

TEST_F(PathCostsFileTest, WhatWasWrittenComesBack) {
  std::vector<PathCost> costs;
  for (size_t i = 0; i < 30; ++i) {
    const auto path = static_cast<FfnPath>(i % kFfnPaths);
    costs.push_back({path, i + 1, static_cast<double>(i) / 29, 1.0 / (i + 3)});
  }
  WriteBytes(path_, "what was there is replaced");
  ASSERT_TRUE(WritePathCosts(path_, Config(), "gpu", costs).ok());
  const auto read = ReadPathCosts(path_, Config(), "gpu");
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), costs.size());
  for (size_t i = 0; i < costs.size(); ++i) {
    EXPECT_EQ((*read)[i].path, costs[i].path);
    EXPECT_EQ((*read)[i].tokens, costs[i].tokens);
    EXPECT_EQ((*read)[i].union_density, costs[i].union_density);
    EXPECT_EQ((*read)[i].microseconds, costs[i].microseconds);
  }
  size_t files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(folder_.path())) {
    EXPECT_EQ(entry.path(), path_) << "the temporary file has gone";
    ++files;
  }
  EXPECT_EQ(files, 1);
}

TEST_F(PathCostsFileTest, NoFileIsNotFound) {
  EXPECT_EQ(ReadPathCosts(path_, Config(), "gpu").status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(PathCostsFileTest, WhatWasMeasuredForSomethingElseIsNamed) {
  ASSERT_EQ(MessageFor(With("gpu", "gpu")), "");
  struct Other {
    const char* from;
    const char* to;
    const char* message;
  };
  const Other all[] = {
      {R"("format": 7)", R"("format": 1)",
       R"("format": expected 7, found 1; remove the file)"},
      {SPARSE_FFN_VERSION, "0.0.0", R"(, found "0.0.0"; remove)"},
      {R"("gpu")", R"("gpu2")",
       R"("device_name": expected "gpu", found "gpu2")"},
      {R"("gpu")", "5", R"(expected "gpu", found 5)"},
      {R"("hidden_size": 64)", R"("hidden_size": 65)",
       R"("hidden_size": expected 64, found 65)"},
      {R"("hidden_size": 64)", R"("hidden_size": "64")", R"(found "64")"},
      {R"("hidden_size": 64)", R"("hidden_size": 64.5)", "found 64.5"},
      {R"("hidden_size": 64)", R"("hidden_size": -64)", "found -64"},
      {R"("hidden_size": 64)", R"("hidden_size": [64])",
       R"("hidden_size": expected a plain value, found an array)"},
      {R"("hidden_size": 64)", R"("hidden_size": {})", "found an object"},
      {": 96", ": 97", R"("intermediate_size": expected 96, found 97)"},
      {"float16", "bfloat16", R"(expected "float16", found "bfloat16")"},
      {"fatrelu", "relu", R"("activation": expected "fatrelu", found "relu")"},
      {": 8,", ": 9,", R"("max_batch_tokens": expected 8, found 9)"}};
  for (const Other& other : all) {
    EXPECT_THAT(MessageFor(With(other.from, other.to)),
                HasSubstr(other.message));
  }
}

TEST_F(PathCostsFileTest, BadEntriesAreNamed) {
  struct Bad {
    const char* from;
    const char* to;
    const char* message;
  };
  const Bad all[] = {
      {R"("gpu",)", R"("gpu", "device_name": "gpu",)", "one such entry"},
      {R"("gpu",)", R"("gpu", "more": 1,)", R"("more": expected no such)"},
      {R"("activation": "fatrelu",)", "",
       R"("activation": expected "fatrelu", found no such entry)"},
      {R"("costs")", R"("cost")", R"("cost": expected no such entry)"},
      {R"("costs": [)", R"("costs": [7,)", R"("costs": expected objects)"},
      {R"("costs": [)", R"("costs": [[1],)", "found an array"},
      {R"("dense")", R"("swift")",
       R"(cost 0: "path": expected sparse, dense or fused, found "swift")"},
      {R"("sparse")", "null", "found null"},
      {R"("tokens": 1)", R"("tokens": 1.5)",
       R"(cost 0: "tokens": expected an integer, found 1.5)"},
      {R"("tokens": 1)", R"("tokens": "1")", R"(found "1")"},
      {R"("tokens": 1)", R"("tokens": -1)", "found -1"},
      {R"("tokens": 1,)", "", R"(cost 0: "tokens": expected a value)"},
      {"77.5", "\"77.5\"", R"("microseconds": expected a number)"},
      {"77.5", "true", "found true"},
      {"77.5", "[77.5]", R"("microseconds": expected a plain value)"},
      {"77.5", "{}", "found an object"},
      {"77.5", "NaN", "expected JSON"},
      {"77.5", "1e999", "expected JSON"},
      {"77.5", "7, \"microseconds\": 8", "one such entry, found two"},
      {"77.5", "7, \"nanoseconds\": 8", R"("nanoseconds": expected no such)"}};
  for (const Bad& bad : all) {
    EXPECT_THAT(MessageFor(With(bad.from, bad.to)), HasSubstr(bad.message));
  }
}

TEST_F(PathCostsFileTest, AFileWithoutCostsIsRefused) {
  ASSERT_TRUE(WritePathCosts(path_, Config(), "gpu", {}).ok());
  EXPECT_THAT(MessageFor(ReadBytes(path_)),
              EndsWith("\"costs\": expected at least one cost, found none; "
                       "remove the file to have them measured"));
}

TEST_F(PathCostsFileTest, TextThatIsNoSuchFileIsRefused) {
  for (const char* text : {"", "{", "nonsense", "{}garbage", "\"\"", "7", "[]",
                           "null", "{\"costs\": []}", "{\"costs\": 1}"}) {
    EXPECT_NE(MessageFor(text), "") << text;
  }
  EXPECT_THAT(MessageFor("[]"), EndsWith("expected an object, found an array"));
  EXPECT_THAT(MessageFor("7"), EndsWith("expected an object, found 7"));
  EXPECT_THAT(MessageFor("{}"), HasSubstr("\"format\": expected 7, found no"));
  const std::string whole = With("gpu", "gpu");
  for (size_t size = 0; size + 2 < whole.size(); ++size) {
    ASSERT_NE(MessageFor(whole.substr(0, size)), "") << size;
  }
}

TEST_F(PathCostsFileTest, HugeTextsAreRefused) {
  EXPECT_THAT(MessageFor(std::string(2 << 20, ' ')),
              HasSubstr("expected at most 1048576 bytes"));
  EXPECT_THAT(MessageFor(std::string(100'000, '[')), HasSubstr("depth"));
  std::string costs;
  for (int i = 0; i < 1001; ++i) {
    absl::StrAppend(&costs,
                    R"({"path": "dense", "tokens": 1, "union_density": 0,)",
                    R"("microseconds": 1},)");
  }
  EXPECT_THAT(MessageFor(With(R"("costs": [)", R"("costs": [)" + costs)),
              HasSubstr("expected at most 1000, found more"));
}

TEST_F(PathCostsFileTest, WhatIsNoFileIsNotWaitedForNorReplaced) {
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  for (const std::string& path : {path_, folder_.path()}) {
    EXPECT_THAT(
        std::string(ReadPathCosts(path, Config(), "gpu").status().message()),
        HasSubstr("expected a regular file, found a"));
    EXPECT_FALSE(WritePathCosts(path, Config(), "gpu", {}).ok());
  }
  EXPECT_TRUE(std::filesystem::is_fifo(path_));
}

TEST_F(PathCostsFileTest, ADeviceNameMayNeedEscapes) {
  const std::string device = "a \"GPU\" \\ \n{";
  ASSERT_TRUE(
      WritePathCosts(path_, Config(), device, {{FfnPath::kDense, 1, 0, 77.5}})
          .ok());
  EXPECT_TRUE(ReadPathCosts(path_, Config(), device).ok());
  const absl::Status other = ReadPathCosts(path_, Config(), "b").status();
  EXPECT_THAT(std::string(other.message()), HasSubstr("\"device_name\": exp"));
  EXPECT_THAT(std::string(other.message()), Not(HasSubstr("\n")));
}

}  // namespace
}  // namespace sparse_ffn
