// Tables of path costs for tests.
#ifndef SPARSE_FFN_TESTS_UNIT_MADE_PATH_COSTS_H_
#define SPARSE_FFN_TESTS_UNIT_MADE_PATH_COSTS_H_

#include <gtest/gtest.h>

#include <cstddef>
#include <random>
#include <set>
#include <tuple>
#include <vector>

#include "kernels/cuda/path_costs.h"
#include "kernels/ffn_backend.h"

namespace sparse_ffn::cuda {

inline PathCosts Made(const std::vector<PathCost>& costs) {
  absl::StatusOr<PathCosts> made = PathCosts::Make(costs);
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? *made : PathCosts();
}

// Up to 29 costs of any path for 1 to 20 tokens.
inline std::vector<PathCost> RandomCosts(std::mt19937* random) {
  const auto below = [random](int limit) {
    return std::uniform_int_distribution<int>(0, limit - 1)(*random);
  };
  std::vector<PathCost> costs;
  std::set<std::tuple<FfnPath, size_t, double>> seen;
  for (int i = below(30); i > 0; --i) {
    const auto path = static_cast<FfnPath>(below(kFfnPaths));
    const size_t tokens = 1 + static_cast<size_t>(below(20));
    const double density = path == FfnPath::kDense ? 0 : below(9) / 8.0;
    if (!seen.emplace(path, tokens, density).second) continue;
    costs.push_back({path, tokens, density, 1 + below(1000) / 7.0});
  }
  return costs;
}

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_TESTS_UNIT_MADE_PATH_COSTS_H_
