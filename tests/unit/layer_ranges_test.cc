#include "server/checkpoint/layer_ranges.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace sparse_ffn {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(ParseLayerRangesTest, TakesNumbersAndRangesThatAscend) {
  const auto parse = [](const std::string& text) {
    std::string result;
    absl::StatusOr<std::vector<LayerRange>> ranges = ParseLayerRanges(text);
    if (!ranges.ok()) return std::string("error");
    for (const LayerRange& range : *ranges) {
      absl::StrAppend(&result, range.first, "..", range.last, " ");
    }
    return result;
  };
  EXPECT_EQ(parse("7"), "7..7 ");
  EXPECT_EQ(parse("0-15"), "0..15 ");
  EXPECT_EQ(parse("0-3,8,10-10"), "0..3 8..8 10..10 ");
  for (const char* text :
       {"", ",", "-", "1-", "-1", "3-1", "1,1", "0-3,2", "a", "1 ", " 1", "+1",
        "1-2-3", "0x1", "1,,2", "99999999999", "1.5"}) {
    EXPECT_EQ(parse(text), "error") << text;
  }
}

TEST(LayersOfTest, ListsEveryLayer) {
  EXPECT_THAT(LayersOf({{0, 2}, {7, 7}}), ElementsAre(0, 1, 2, 7));
  EXPECT_THAT(LayersOf({}), IsEmpty());
}

TEST(FirstLayerMissingTest, EndsAtTheFirst) {
  EXPECT_EQ(FirstLayerMissing({{0, 1}, {5, 5}}, {0, 1, 2, 5}), std::nullopt);
  EXPECT_EQ(FirstLayerMissing({{1, 5}}, {0, 1, 2, 5}), 3);
  EXPECT_EQ(FirstLayerMissing({{2, 999'999'999}}, {2, 3}), 4);
  EXPECT_EQ(FirstLayerMissing({}, {}), std::nullopt);
}

TEST(FormatLayersTest, JoinsNeighbours) {
  EXPECT_EQ(FormatLayers({}), "");
  EXPECT_EQ(FormatLayers({4}), "4");
  EXPECT_EQ(FormatLayers({0, 1, 2, 3, 8}), "0-3, 8");
  EXPECT_EQ(FormatLayers({0, 2, 3}), "0, 2-3");
}

}  // namespace
}  // namespace sparse_ffn
