#include "kernels/cuda/path_costs.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "absl/strings/str_cat.h"

namespace sparse_ffn::cuda {
namespace {

absl::Status Check(const PathCost& cost) {
  // Negated, so that NaN is refused.
  const double most_density = cost.path == FfnPath::kDense ? 0 : 1;
  if (!(cost.union_density >= 0 && cost.union_density <= most_density)) {
    return absl::InvalidArgumentError(
        absl::StrCat("union_density: expected ",
                     most_density == 0 ? "0" : "a number from 0 to 1",
                     ", found ", cost.union_density));
  }
  if (cost.tokens < 1 || cost.tokens > kMaxBatchTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokens: expected an integer from 1 to ", kMaxBatchTokens,
                     ", found ", cost.tokens));
  }
  if (!(cost.microseconds > 0 && std::isfinite(cost.microseconds))) {
    return absl::InvalidArgumentError(
        absl::StrCat("microseconds: expected a finite number > 0, found ",
                     cost.microseconds));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PathCosts> PathCosts::Make(absl::Span<const PathCost> costs) {
  PathCosts made;
  for (size_t i = 0; i < costs.size(); ++i) {
    const PathCost& cost = costs[i];
    absl::Status status = Check(cost);
    Points& points = made.paths_[static_cast<size_t>(cost.path)][cost.tokens];
    const auto at =
        std::lower_bound(points.begin(), points.end(), cost.union_density,
                         [](const Point& point, double density) {
                           return point.union_density < density;
                         });
    if (status.ok() && at != points.end() &&
        at->union_density == cost.union_density) {
      status = absl::InvalidArgumentError(
          absl::StrCat("union_density: expected ", cost.union_density,
                       " once for ", cost.tokens, " tokens, found it twice"));
    }
    if (!status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "cost ", i, " (", FfnPathName(cost.path), "): ", status.message()));
    }
    points.insert(at, {cost.union_density, cost.microseconds});
  }
  return made;
}

double PathCosts::AtDensity(const Points& points, double union_density) {
  const Point& first = points.front();
  const Point& last = points.back();
  if (union_density <= first.union_density) return first.microseconds;
  const auto line = [union_density](const Point& from, const Point& to) {
    return (union_density - from.union_density) /
           (to.union_density - from.union_density) *
           (to.microseconds - from.microseconds);
  };
  if (union_density <= last.union_density) {
    const auto above = std::find_if(
        points.begin(), points.end(), [union_density](const Point& point) {
          return point.union_density >= union_density;
        });
    const auto below = std::prev(above);
    return below->microseconds + line(*below, *above);
  }
  if (points.size() == 1) return last.microseconds;
  return std::max(last.microseconds, first.microseconds + line(first, last));
}

std::optional<double> PathCosts::Expected(FfnPath path, size_t tokens,
                                          float union_density) const {
  const std::map<size_t, Points>& measured = paths_[static_cast<size_t>(path)];
  const auto above = measured.lower_bound(tokens);
  if (above == measured.end()) return std::nullopt;
  const double more = AtDensity(above->second, union_density);
  if (above->first == tokens) return more;
  if (above == measured.begin()) return std::nullopt;
  const auto below = std::prev(above);
  const double less = AtDensity(below->second, union_density);
  const double share = static_cast<double>(tokens - below->first) /
                       static_cast<double>(above->first - below->first);
  return less + share * (more - less);
}

}  // namespace sparse_ffn::cuda
