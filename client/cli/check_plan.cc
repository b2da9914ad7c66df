#include "client/cli/check_plan.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"

namespace sparse_ffn {
namespace {

constexpr size_t kUsualRows = 64;
constexpr size_t kUsualTokenCounts[] = {1, 2, 3, 7, 8, 16, 33};

bool Contains(const std::vector<int>& ascending, int layer) {
  return std::binary_search(ascending.begin(), ascending.end(), layer);
}

}  // namespace

absl::StatusOr<std::vector<int>> LayersToCheck(
    const std::vector<LayerRange>& wanted,
    const std::vector<int>& server_layers,
    const std::vector<int>& checkpoint_layers) {
  const std::optional<int> not_served =
      FirstLayerMissing(wanted, server_layers);
  if (not_served.has_value()) {
    return absl::NotFoundError(absl::StrCat("the server does not hold layer ",
                                            *not_served, ", only ",
                                            FormatLayers(server_layers)));
  }
  std::vector<int> layers = wanted.empty() ? server_layers : LayersOf(wanted);
  for (const int layer : layers) {
    if (!Contains(checkpoint_layers, layer)) {
      return absl::NotFoundError(absl::StrCat("the checkpoint has no layer ",
                                              layer, ", only ",
                                              FormatLayers(checkpoint_layers)));
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
