#include "tests/bench/bench_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace sparse_ffn::bench {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Parses `args` into `options`: what the parser complains of, or nothing.
std::string Parse(const std::string& args, Options* options) {
  CLI::App app;
  AddFlags(&app, options);
  try {
    app.parse(args);
  } catch (const CLI::ParseError& error) {
    EXPECT_NE(error.get_exit_code(), 0);
    return error.what();
  }
  return "";
}

TEST(BenchOptionsTest, ListsAreParted) {
  Options options;
  EXPECT_EQ(Parse("--presets minicpm-s-1b --dtypes bfloat16,float16 "
                  "--paths fused,dense --tokens 1,8 --sparsities 0,0.5,1",
                  &options),
            "");
  EXPECT_EQ(FindPreset(options.presets.at(0)).hidden_size, 1536);
  EXPECT_THAT(options.dtypes, ElementsAre("bfloat16", "float16"));
  EXPECT_TRUE(options.HasPath("dense"));
  EXPECT_FALSE(options.HasPath("steps"));
  EXPECT_THAT(options.tokens, ElementsAre(1, 8));
  EXPECT_THAT(options.sparsities, ElementsAre(0, 0.5, 1));
}

TEST(BenchOptionsTest, UnknownNamesAreRefusedWithTheKnownOnes) {
  Options options;
  EXPECT_THAT(Parse("--presets prosparse-7b,prosparse-8b", &options),
              AllOf(HasSubstr("prosparse-8b"), HasSubstr("prosparse-13b")));
  EXPECT_THAT(Parse("--dtypes float32", &options),
              AllOf(HasSubstr("float32"), HasSubstr("bfloat16")));
  EXPECT_THAT(Parse("--paths sparse", &options),
              AllOf(HasSubstr("sparse"), HasSubstr("steps")));
}

TEST(BenchOptionsTest, NumbersOutOfRangeAreRefused) {
  Options options;
  for (const char* args : {"--tokens 0", "--tokens 1025", "--sparsities 1.1",
                           "--layers 0", "--verify -1", "--paths \"\""}) {
    EXPECT_NE(Parse(args, &options), "") << args;
  }
}

}  // namespace
}  // namespace sparse_ffn::bench
