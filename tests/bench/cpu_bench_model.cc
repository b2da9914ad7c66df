#include "tests/bench/cpu_bench_model.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>

namespace sparse_ffn::bench {
namespace {

// Random elements of the type in [-scale, scale).
std::vector<uint8_t> RandomElements(size_t count, float scale, DataType dtype,
                                    uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint8_t> elements(count * DataTypeBytes(dtype));
  std::vector<float> chunk(4096);
  for (size_t i = 0; i < count; i += chunk.size()) {
    const size_t size = std::min(chunk.size(), count - i);
    for (float& value : chunk) {
      value = (static_cast<float>(random() >> 40) * 0x1p-23F - 1) * scale;
    }
    Convert({chunk.data(), 1, size, DataType::kFloat32},
            {&elements[i * DataTypeBytes(dtype)], 1, size, dtype});
  }
  return elements;
}

FfnConfig ConfigOf(const CpuBenchModel::Sizes& sizes, size_t layers) {
  FfnConfig config;
  config.hidden_size = sizes.hidden_size;
  config.intermediate_size = sizes.intermediate_size;
  config.num_layers = layers;
  config.max_batch_tokens = sizes.tokens;
  config.weights_dtype = sizes.dtype;
  return config;
}

}  // namespace

CpuBenchModel::CpuBenchModel(const Sizes& sizes, int threads,
                             const Masks& masks)
    : sizes_(sizes), layers_(static_cast<int>(masks.size())) {
  backend_ = NewCpuBackend(ConfigOf(sizes, masks.size()), threads).value();
  const size_t count = sizes.hidden_size * sizes.intermediate_size;
  std::vector<uint8_t> gate = RandomElements(count, 1e-3F, sizes.dtype, 1);
  const std::vector<uint8_t> up = RandomElements(count, 0.03F, sizes.dtype, 2);
  const auto down = RandomElements(count, 0.03F, sizes.dtype, 3);
  for (int layer = 0; layer < layers_; ++layer) {
    const std::vector<uint8_t>& mask = masks[static_cast<size_t>(layer)];
    for (size_t i = 0; i < mask.size(); ++i) {
      const size_t n = sizes.intermediate_size;
      Put(gate.data(), i % n, i / n, mask[i] != 0 ? 1 : -1);
    }
    const absl::Status status =
        backend_->AddLayer(layer, {View(gate), View(up), View(down)});
    if (!status.ok()) throw std::runtime_error(std::string(status.message()));
  }
  lane_ = backend_->NewLane().value();
  FillInput();
}

FfnStats CpuBenchModel::Run(int layer, Execution execution) {
  return lane_->Run(layer, sizes_.tokens, execution).value().stats;
}

void CpuBenchModel::FillInput() {
  const Matrix input = lane_->input(sizes_.tokens);
  const std::vector<uint8_t> states =
      RandomElements(sizes_.tokens * sizes_.hidden_size, 1, sizes_.dtype, 4);
  std::memcpy(input.data, states.data(), states.size());
  for (size_t t = 0; t < sizes_.tokens; ++t) {
    for (size_t c = 0; c < sizes_.tokens; ++c) {
      Put(static_cast<uint8_t*>(input.data), t, c, c == t ? 1 : 0);
    }
  }
}

ConstMatrix CpuBenchModel::View(const std::vector<uint8_t>& elements) const {
  return {elements.data(), sizes_.intermediate_size, sizes_.hidden_size,
          sizes_.dtype};
}

void CpuBenchModel::Put(uint8_t* matrix, size_t row, size_t column,
                        float value) const {
  const size_t at = row * sizes_.hidden_size + column;
  Convert({&value, 1, 1, DataType::kFloat32},
          {matrix + at * DataTypeBytes(sizes_.dtype), 1, 1, sizes_.dtype});
}

}  // namespace sparse_ffn::bench
