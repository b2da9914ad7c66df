#include "server/checkpoint/quoted.h"

#include <gtest/gtest.h>

#include <string>

namespace sparse_ffn {
namespace {

TEST(QuotedTest, EscapesWhatWouldEndOrHideIt) {
  EXPECT_EQ(Quoted(""), "\"\"");
  EXPECT_EQ(Quoted("it's '<f8'"), "\"it's '<f8'\"");
  EXPECT_EQ(Quoted("a\"b"), "\"a\\\"b\"");
  EXPECT_EQ(Quoted("\\'"), "\"\\\\'\"");
  EXPECT_EQ(Quoted("\n\x1b[0m\xff"), "\"\\n\\x1b[0m\\xff\"");
}

TEST(QuotedTest, ShortensLongText) {
  const std::string start(96, 'a');
  EXPECT_EQ(Quoted(start), "\"" + start + "\"");
  EXPECT_EQ(Quoted(start + "b"), "\"" + start + "...\"");
}

}  // namespace
}  // namespace sparse_ffn
