#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/aligned_memory.h"
#include "kernels/cpu/cpu_lane.h"
#include "kernels/cpu/cpu_model.h"
#include "kernels/cpu/host_info.h"
#include "kernels/deterministic_lane.h"
#include "kernels/ffn_backend.h"
#include "kernels/ffn_checks.h"

namespace sparse_ffn {
namespace {

using cpu::CpuLayer;
using cpu::CpuModel;
using cpu::PackedMatrix;

// Copies `source` to memory with the stride of a packed matrix, a few rows at
// a time in each thread.
void Pack(ConstMatrix source, const PackedMatrix& packed, uint8_t* to,
          cpu::ThreadPool& pool) {
  constexpr size_t kRowsPerPart = 64;
  const size_t parts = (source.rows + kRowsPerPart - 1) / kRowsPerPart;
  pool.Run(parts, [&](size_t part) {
    const size_t begin = part * kRowsPerPart;
    const size_t end = std::min(begin + kRowsPerPart, source.rows);
    for (size_t j = begin; j < end; ++j) {
      uint8_t* row = to + j * packed.stride_bytes;
      std::memcpy(row, source.row(j), source.row_bytes());
      std::memset(row + source.row_bytes(), 0,
                  packed.stride_bytes - source.row_bytes());
    }
  });
}

class CpuBackend : public FfnBackend {
 public:
  // Throws std::system_error where a thread cannot be started.
  CpuBackend(const FfnConfig& config, int threads)
      : device_name_(cpu::ProcessorName()), model_(config, threads) {}

  const char* name() const override { return "cpu"; }
  const std::string& device_name() const override { return device_name_; }
  size_t weights_bytes() const override { return weights_bytes_; }

  absl::Status AddLayer(int layer, const FfnWeights& weights) override;
  absl::StatusOr<std::unique_ptr<FfnLane>> NewLane() override {
    auto lane = cpu::CpuLane::New(model_);
    if (!lane.ok() || !model_.config.deterministic) return lane;
    return NewDeterministicLane(*std::move(lane), model_.config);
  }

 private:
  const std::string device_name_;
  CpuModel model_;
  size_t weights_bytes_ = 0;
};

absl::Status CpuBackend::AddLayer(int layer, const FfnWeights& weights) {
  absl::Status status = CheckWeights(model_.config, weights);
  if (!status.ok()) return status;
  if (model_.layers.count(layer) != 0) {
    return absl::AlreadyExistsError(
        absl::StrCat("layer ", layer, " was added before"));
  }
  const std::array<ConstMatrix, 3> matrices = {
      weights.gate_proj, weights.up_proj, weights.down_proj};
  const FfnConfig& config = model_.config;
  const size_t stride =
      cpu::StrideBytes(config.hidden_size, config.weights_dtype);
  auto memory = cpu::NewAlignedMemory(
      matrices.size() * config.intermediate_size * stride, "a layer");
  if (!memory.ok()) return memory.status();
  const size_t padded_cols = cpu::PaddedCols(config.hidden_size);
  std::array<PackedMatrix, 3> packed;
  uint8_t* at = memory->get();
  for (size_t i = 0; i < matrices.size(); ++i) {
    const ConstMatrix matrix = matrices[i];
    packed[i] = {at, stride, padded_cols, matrix.dtype};
    Pack(matrix, packed[i], at, model_.pool);
    at += matrix.rows * stride;
    weights_bytes_ += matrix.bytes();
  }
  CpuLayer& added = model_.layers[layer];
  added.memory = *std::move(memory);
  added.gate_proj = packed[0];
  added.up_proj = packed[1];
  added.down_proj = packed[2];
  return absl::OkStatus();
}

absl::Status CheckThreads(int threads) {
  if (threads >= 0 && threads <= kMaxCpuThreads) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "threads: expected 0 to ", kMaxCpuThreads, ", got ", threads));
}

absl::Status CheckMemory(const FfnConfig& config) {
  const std::optional<size_t> available = cpu::AvailableMemoryBytes();
  // As double, for a product that may be larger than any integer.
  const double needed = 3.0 * static_cast<double>(config.num_layers) *
                        static_cast<double>(config.intermediate_size) *
                        static_cast<double>(cpu::StrideBytes(
                            config.hidden_size, config.weights_dtype));
  if (!available.has_value() || needed <= static_cast<double>(*available)) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      config.num_layers, " layers need ", needed / 1e9, " GB of memory, ",
      static_cast<double>(*available) / 1e9, " GB are available"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<FfnBackend>> NewCpuBackend(
    const FfnConfig& config, int threads) {
  absl::Status status = CheckConfig(config);
  if (status.ok()) status = CheckThreads(threads);
  if (status.ok()) status = CheckMemory(config);
  if (!status.ok()) return status;
  if (threads == 0) threads = cpu::AvailableProcessors();
  try {
    return std::make_unique<CpuBackend>(config, threads);
  } catch (const std::exception& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot start ", threads, " threads: ", error.what()));
  }
}

}  // namespace sparse_ffn
