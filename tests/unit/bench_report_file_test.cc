#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/bench/report_file.h"
#include "tests/unit/checkpoint_files.h"

namespace sparse_ffn::bench {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

nlohmann::json Report() {
  return {{"cases",
           {{{"key", "b"}, {"fused_us", 40.5}, {"dense_us", 100}},
            {{"key", "a"}, {"steps_us", 60}}}}};
}

TEST(BenchReportFileTest, TimesComeBackInTheirOrder) {
  const TempFolder folder;
  const std::string path = folder.File("written");
  ASSERT_TRUE(WriteReport(Report(), path).ok());
  ASSERT_TRUE(CheckWritable(path).ok());
  auto times = ReadTimes(path);
  ASSERT_TRUE(times.ok()) << times.status();
  ASSERT_EQ(times->size(), 2U);
  EXPECT_EQ((*times)[0].key, "b");
  EXPECT_EQ((*times)[0].fused, 40.5);
  EXPECT_EQ((*times)[0].steps, 0);
  EXPECT_EQ((*times)[0].dense, 100);
  EXPECT_EQ((*times)[1].key, "a");
  EXPECT_EQ((*times)[1].steps, 60);
}

TEST(BenchReportFileTest, FilesThatAreNoReportAreRefused) {
  const TempFolder folder;
  EXPECT_EQ(ReadTimes(folder.File("absent")).status().code(),
            absl::StatusCode::kNotFound);
  const std::string path = folder.File("broken");
  for (const char* text :
       {"", "{", "[]", "3", "{}", R"({"cases": [3]})", R"({"cases": 3})",
        R"({"cases": [{"fused_us": 1}]})", R"({"cases": [{"key": 1}]})",
        R"({"cases": [{"key": "a", "fused_us": "fast"}]})"}) {
    WriteBytes(path, text);
    EXPECT_EQ(ReadTimes(path).status().code(),
              absl::StatusCode::kInvalidArgument)
        << text;
  }
}

TEST(BenchReportFileTest, FilesThatCannotBeWrittenAreFound) {
  const TempFolder folder;
  const std::string path = folder.File("absent/report.json");
  EXPECT_THAT(std::string(CheckWritable(path).message()), HasSubstr(path));
  EXPECT_FALSE(WriteReport(Report(), path).ok());
}

TEST(BenchReportFileTest, ComparisonHasRatiosAndWhatIsMissing) {
  const std::string table =
      CompareTimes({{"both", 40, 60, 0}, {"old", 1, 2, 3}},
                   {{"new", 1, 2, 3}, {"both", 30, 66, 100}});
  EXPECT_THAT(table, HasSubstr("    40.0     30.0    0.750"));
  EXPECT_THAT(table, HasSubstr("    60.0     66.0    1.100"));
  EXPECT_THAT(table, HasSubstr("       -    100.0        -"));
  EXPECT_THAT(table, HasSubstr("only in this run: new\n"));
  EXPECT_THAT(table, HasSubstr("only in the old file: old\n"));
  EXPECT_THAT(table, Not(HasSubstr(": both")));
}

}  // namespace
}  // namespace sparse_ffn::bench
