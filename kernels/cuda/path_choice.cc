#include "kernels/cuda/path_choice.h"

#include <optional>

namespace sparse_ffn::cuda {
namespace {

FfnPath Unmeasured(Execution execution, size_t tokens, size_t hidden_size,
                   float expected_union_density, bool fused) {
  const FfnPath sparse = fused ? FfnPath::kFused : FfnPath::kSparse;
  if (execution == Execution::kSparse) return sparse;
  const float most =
      fused ? MaxFusedDensity(tokens) : MaxSparseDensity(tokens, hidden_size);
  return expected_union_density <= most ? sparse : FfnPath::kDense;
}

}  // namespace

FfnPath ChoosePath(Execution execution, size_t tokens, size_t hidden_size,
                   float expected_union_density, bool fused,
                   const PathCosts& costs) {
  if (execution == Execution::kDense) return FfnPath::kDense;
  std::optional<FfnPath> fastest;
  double least = 0;
  for (FfnPath path : {FfnPath::kFused, FfnPath::kSparse, FfnPath::kDense}) {
    if (path == FfnPath::kFused && !fused) continue;
    if (path == FfnPath::kDense && execution == Execution::kSparse) continue;
    const std::optional<double> cost =
        costs.Expected(path, tokens, expected_union_density);
    if (!cost || (fastest && *cost >= least)) continue;
    fastest = path;
    least = *cost;
  }
  if (fastest) return *fastest;
  return Unmeasured(execution, tokens, hidden_size, expected_union_density,
                    fused);
}

float SparseUpTo(size_t tokens, size_t hidden_size, bool fused,
                 const PathCosts& costs) {
  for (int hundredths = 100; hundredths >= 0; --hundredths) {
    const float density = static_cast<float>(hundredths) / 100;
    if (ChoosePath(Execution::kAuto, tokens, hidden_size, density, fused,
                   costs) != FfnPath::kDense) {
      return density;
    }
  }
  return -1;
}

}  // namespace sparse_ffn::cuda
