#include "server/checkpoint/layer_ranges.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "server/checkpoint/quoted.h"

namespace sparse_ffn {
namespace {

constexpr size_t kMaxLayerDigits = 9;  // Always fits an int.

bool ParseLayerNumber(absl::string_view text, int& layer) {
  return !text.empty() && text.size() <= kMaxLayerDigits &&
         text.find_first_not_of("0123456789") == absl::string_view::npos &&
         absl::SimpleAtoi(text, &layer);
}

}  // namespace

absl::StatusOr<std::vector<LayerRange>> ParseLayerRanges(
    const std::string& text) {
  std::vector<LayerRange> ranges;
  int previous = -1;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const std::pair<absl::string_view, absl::string_view> ends =
        absl::StrSplit(part, absl::MaxSplits('-', 1));
    const bool is_single = part.find('-') == absl::string_view::npos;
    LayerRange range;
    if (!ParseLayerNumber(ends.first, range.first) ||
        !ParseLayerNumber(is_single ? ends.first : ends.second, range.last) ||
        range.first <= previous || range.last < range.first) {
      return absl::InvalidArgumentError(absl::StrCat(
          "expected ascending numbers and ranges such as 0-3,8, found ",
          Quoted(text)));
    }
    previous = range.last;
    ranges.push_back(range);
  }
  return ranges;
}

std::optional<int> FirstLayerMissing(const std::vector<LayerRange>& ranges,
                                     const std::vector<int>& held) {
  for (const LayerRange& range : ranges) {
    for (int layer = range.first; layer <= range.last; ++layer) {
      if (!std::binary_search(held.begin(), held.end(), layer)) return layer;
    }
  }
  return std::nullopt;
}

std::vector<int> LayersOf(const std::vector<LayerRange>& ranges) {
  std::vector<int> layers;
  for (const LayerRange& range : ranges) {
    for (int layer = range.first; layer <= range.last; ++layer) {
      layers.push_back(layer);
    }
  }
  return layers;
}

std::string FormatLayers(const std::vector<int>& layers) {
  std::string text;
  for (size_t i = 0; i < layers.size();) {
    size_t last = i;
    while (last + 1 < layers.size() && layers[last + 1] == layers[last] + 1) {
      ++last;
    }
    absl::StrAppend(&text, text.empty() ? "" : ", ", layers[i]);
    if (last > i) absl::StrAppend(&text, "-", layers[last]);
    i = last + 1;
  }
  return text;
}

}  // namespace sparse_ffn
