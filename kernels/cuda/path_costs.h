// How long batches took on each path, as a table to look up what to expect.
#ifndef SPARSE_FFN_KERNELS_CUDA_PATH_COSTS_H_
#define SPARSE_FFN_KERNELS_CUDA_PATH_COSTS_H_

#include <array>
#include <cstddef>
#include <map>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/ffn_backend.h"

namespace sparse_ffn::cuda {

class PathCosts {
 public:
  // Nothing was measured.
  PathCosts() = default;

  // In any order. INVALID_ARGUMENT, naming the entry, for values out of the
  // limits that PathCost states, and for two of the same path, tokens and
  // density.
  static absl::StatusOr<PathCosts> Make(absl::Span<const PathCost> costs);

  // Microseconds to expect of `path` for a batch of `tokens` with the share
  // `union_density` of neurons in its union. Linear between the measured
  // densities, and between the measured numbers of tokens. Beyond the largest
  // density the time goes on along the line from the first to the last, but
  // never falls; before the smallest it is that one's. Nothing for fewer or
  // more tokens than were measured on this path.
  std::optional<double> Expected(FfnPath path, size_t tokens,
                                 float union_density) const;

 private:
  struct Point {
    double union_density;
    double microseconds;
  };
  using Points = std::vector<Point>;  // Ascending in density, never empty.

  static double AtDensity(const Points& points, double union_density);

  // By path, then by tokens.
  std::array<std::map<size_t, Points>, kFfnPaths> paths_;
};

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_PATH_COSTS_H_
