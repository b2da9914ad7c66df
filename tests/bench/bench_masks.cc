#include "tests/bench/bench_masks.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/matrix.h"

namespace sparse_ffn::bench {

double UnionDensity(const Masks& masks, size_t n) {
  size_t active = 0;
  for (const std::vector<uint8_t>& mask : masks) {
    for (size_t j = 0; j < n; ++j) {
      bool any = false;
      for (size_t at = j; at < mask.size(); at += n) any |= mask[at] != 0;
      active += any ? 1 : 0;
    }
  }
  return static_cast<double>(active) / static_cast<double>(n * masks.size());
}

int TypicalLayer(const Masks& masks, size_t n) {
  const double mean = UnionDensity(masks, n);
  std::vector<double> distances;
  for (const std::vector<uint8_t>& mask : masks) {
    distances.push_back(std::abs(UnionDensity({mask}, n) - mean));
  }
  const auto least = std::min_element(distances.begin(), distances.end());
  return static_cast<int>(least - distances.begin());
}

Masks RandomMasks(int layers, int tokens, size_t n, double sparsity) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> uniform;
  Masks masks(layers, std::vector<uint8_t>(tokens * n));
  for (auto& mask : masks) {
    for (uint8_t& active : mask) active = uniform(random) >= sparsity ? 1 : 0;
  }
  return masks;
}

absl::StatusOr<Masks> ReplayedMasks(const NpyArray& rows, int layers,
                                    int tokens, size_t n) {
  if (rows.rows < static_cast<size_t>(tokens) || rows.cols == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected at least ", tokens, " rows to replay, got ",
                     rows.rows, " of ", rows.cols, " columns"));
  }
  const size_t cols = rows.cols;
  std::vector<float> values(rows.rows * cols);
  Convert(rows.view(), {values.data(), rows.rows, cols, DataType::kFloat32});
  Masks masks(layers, std::vector<uint8_t>(tokens * n));
  for (int layer = 0; layer < layers; ++layer) {
    const size_t places = rows.rows - tokens + 1;
    const size_t first = static_cast<size_t>(layer) * places / layers;
    for (size_t i = 0; i < masks[layer].size(); ++i) {
      const size_t at = (first + i / n) * cols + i % n % cols;
      masks[layer][i] = values[at] != 0 ? 1 : 0;
    }
  }
  return masks;
}

}  // namespace sparse_ffn::bench
