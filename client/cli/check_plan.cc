#include "client/cli/check_plan.h"

#include <algorithm>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace sparse_ffn {
namespace {

constexpr size_t kUsualRows = 64;
constexpr size_t kUsualTokenCounts[] = {1, 2, 3, 7, 8, 16, 33};
constexpr int kMaxLayers = 10000;

bool Contains(const std::vector<int>& ascending, int layer) {
  return std::binary_search(ascending.begin(), ascending.end(), layer);
}

bool ParseRange(absl::string_view text, int* first, int* last) {
  const std::pair<absl::string_view, absl::string_view> ends =
      absl::StrSplit(text, absl::MaxSplits('-', 1));
  const bool single = text.find('-') == absl::string_view::npos;
  return absl::SimpleAtoi(ends.first, first) &&
         absl::SimpleAtoi(single ? ends.first : ends.second, last) &&
         *first >= 0 && *last >= *first && *last - *first < kMaxLayers;
}

}  // namespace

absl::StatusOr<std::vector<int>> ParseLayerList(const std::string& text) {
  std::set<int> layers;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    int first = 0;
    int last = 0;
    if (!ParseRange(part, &first, &last) || layers.size() > kMaxLayers) {
      return absl::InvalidArgumentError(absl::StrCat(
          "layers '", text, "': expected numbers and ranges such as 0-3,7"));
    }
    for (int layer = first; layer <= last; ++layer) layers.insert(layer);
  }
  return std::vector<int>(layers.begin(), layers.end());
}

absl::StatusOr<std::vector<int>> LayersToCheck(
    const std::vector<int>& wanted, const std::vector<int>& server_layers,
    const std::vector<int>& checkpoint_layers) {
  const std::vector<int>& layers = wanted.empty() ? server_layers : wanted;
  for (const int layer : layers) {
    if (!Contains(server_layers, layer)) {
      return absl::NotFoundError(
          absl::StrCat("the server does not hold layer ", layer, ", only ",
                       absl::StrJoin(server_layers, ", ")));
    }
    if (!Contains(checkpoint_layers, layer)) {
      return absl::NotFoundError(
          absl::StrCat("the checkpoint has no layer ", layer, ", only ",
                       absl::StrJoin(checkpoint_layers, ", ")));
    }
  }
  return layers;
}

absl::StatusOr<CheckSizes> ChooseCheckSizes(size_t tokens,
                                            size_t max_batch_tokens,
                                            size_t input_rows) {
  if (tokens > max_batch_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("the server takes at most ", max_batch_tokens,
                     " tokens a request, not ", tokens));
  }
  if (input_rows > 0 && tokens > input_rows) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the inputs have ", input_rows, " rows, fewer than ", tokens));
  }
  CheckSizes sizes;
  sizes.rows = std::max(tokens, kUsualRows);
  if (input_rows > 0) sizes.rows = std::min(sizes.rows, input_rows);
  const size_t most =
      tokens > 0 ? tokens : std::min(sizes.rows, max_batch_tokens);
  if (tokens > 0) {
    for (size_t count = 1; count <= tokens; ++count) {
      sizes.token_counts.push_back(count);
    }
    return sizes;
  }
  for (const size_t count : kUsualTokenCounts) {
    if (count < most) sizes.token_counts.push_back(count);
  }
  sizes.token_counts.push_back(most);
  return sizes;
}

std::vector<size_t> RequestStarts(size_t rows, size_t tokens) {
  std::vector<size_t> starts;
  size_t first = 0;
  for (; first + tokens <= rows; first += tokens) starts.push_back(first);
  if (first < rows) starts.push_back(rows - tokens);
  return starts;
}

}  // namespace sparse_ffn
