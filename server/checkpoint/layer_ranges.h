// Layer numbers as people write them: "0-15,20".
#ifndef SPARSE_FFN_SERVER_CHECKPOINT_LAYER_RANGES_H_
#define SPARSE_FFN_SERVER_CHECKPOINT_LAYER_RANGES_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace sparse_ffn {

// Layers first to last, both included.
struct LayerRange {
  int first = 0;
  int last = 0;
};

// Parses "0-15", "7" or "0-3,8": ranges that ascend and do not overlap, so
// never nothing. INVALID_ARGUMENT otherwise.
absl::StatusOr<std::vector<LayerRange>> ParseLayerRanges(
    const std::string& text);

// The first layer of `ranges` that is not in `held`, which ascends. However
// huge a range, this takes no longer than going through `held`.
std::optional<int> FirstLayerMissing(const std::vector<LayerRange>& ranges,
                                     const std::vector<int>& held);

// Every layer of `ranges`, ascending.
std::vector<int> LayersOf(const std::vector<LayerRange>& ranges);

// "0-3, 8" for {0, 1, 2, 3, 8}; `layers` ascend.
std::string FormatLayers(const std::vector<int>& layers);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_CHECKPOINT_LAYER_RANGES_H_
