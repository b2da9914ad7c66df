// Which layers, rows and token counts a check goes through.
#ifndef SPARSE_FFN_CLIENT_CLI_CHECK_PLAN_H_
#define SPARSE_FFN_CLIENT_CLI_CHECK_PLAN_H_

#include <cstddef>
#include <vector>

#include "absl/status/statusor.h"
#include "server/checkpoint/layer_ranges.h"

namespace sparse_ffn {

// The layers of `wanted` (all that the server holds where it is empty).
// NOT_FOUND, naming the layer and the side, where server or checkpoint lacks
// one. Both lists ascend.
absl::StatusOr<std::vector<int>> LayersToCheck(
    const std::vector<LayerRange>& wanted,
    const std::vector<int>& server_layers,
    const std::vector<int>& checkpoint_layers);

// How many rows are sent in all and in one request.
struct CheckSizes {
  size_t rows = 0;
  std::vector<size_t> token_counts;  // Ascending, each at most `rows`.
};

// With `tokens` > 0 every count from 1 to `tokens`, else a few from 1 to the
// smallest of 64, `max_batch_tokens` and the rows there are. `input_rows` is 0
// where rows are random, and any number of them can be had. INVALID_ARGUMENT
// where `tokens` is more than the server takes or the rows there are.
absl::StatusOr<CheckSizes> ChooseCheckSizes(size_t tokens,
                                            size_t max_batch_tokens,
                                            size_t input_rows);

// First rows of the requests of `tokens` rows that together cover all `rows`;
// the last one overlaps where they do not divide.
std::vector<size_t> RequestStarts(size_t rows, size_t tokens);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_CLI_CHECK_PLAN_H_
