#include <cuda_runtime_api.h>

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/cuda/cuda_handles.h"
#include "kernels/cuda/cuda_lane.h"
#include "kernels/cuda/cuda_measure.h"
#include "kernels/cuda/cuda_model.h"
#include "kernels/cuda/cuda_steps.h"
#include "kernels/cuda/path_choice.h"
#include "kernels/ffn_backend.h"
#include "kernels/ffn_checks.h"

namespace sparse_ffn {
namespace {

using cuda::AlignUp;
using cuda::CudaLane;
using cuda::CudaLayer;
using cuda::CudaModel;
using cuda::ToStatus;

constexpr int kMinComputeMajor = 8;
// cuBLAS's handle and workspace, the context's growth, what lanes record, a
// margin.
constexpr size_t kReserveBytes = size_t{256} << 20;

class CudaBackend : public FfnBackend {
 public:
  CudaBackend(const FfnConfig& config, int device, const cudaDeviceProp& found,
              SparseForm form)
      : device_name_(found.name) {
    model_.config = config;
    const bool fuse = config.deterministic && form == SparseForm::kAuto;
    model_.sparse_form = fuse ? SparseForm::kFused : form;
    model_.element = config.weights_dtype == DataType::kFloat16
                         ? cuda::Element::kFloat16
                         : cuda::Element::kBFloat16;
    model_.device = device;
    model_.device_traits = {found.multiProcessorCount, found.major >= 9,
                            static_cast<int>(found.sharedMemPerBlockOptin)};
  }

  const char* name() const override { return "cuda"; }
  const std::string& device_name() const override { return device_name_; }
  size_t weights_bytes() const override { return weights_bytes_; }

  absl::Status AddLayer(int layer, const FfnWeights& weights) override;
  absl::StatusOr<std::unique_ptr<FfnLane>> NewLane() override {
    return CudaLane::New(model_);
  }
  absl::StatusOr<std::vector<PathCost>> MeasurePaths(
      double seconds, const std::function<void()>& progress) override {
    if (model_.config.deterministic) return std::vector<PathCost>();
    return cuda::MeasureCudaPaths(model_, seconds, progress);
  }
  absl::Status SetPathCosts(absl::Span<const PathCost> costs) override;
  float SparseUpTo(size_t tokens) const override {
    if (model_.config.deterministic) return 1;
    return cuda::SparseUpTo(tokens, model_.config.hidden_size,
                            CudaLane::MayFuse(model_, tokens),
                            model_.path_costs);
  }

 private:
  const std::string device_name_;
  CudaModel model_;
  size_t weights_bytes_ = 0;
};

absl::Status CudaBackend::AddLayer(int layer, const FfnWeights& weights) {
  absl::Status status = CheckWeights(model_.config, weights);
  if (!status.ok()) return status;
  if (model_.layers.contains(layer)) {
    return absl::AlreadyExistsError(
        absl::StrCat("layer ", layer, " was added before"));
  }
  status = ToStatus(cudaSetDevice(model_.device), "cudaSetDevice");
  if (!status.ok()) return status;
  const size_t stride = AlignUp(weights.gate_proj.bytes());
  auto memory = cuda::NewDeviceMemory(3 * stride);
  if (!memory.ok()) return memory.status();
  std::byte* at = memory->get();
  const std::array<ConstMatrix, 3> matrices = {
      weights.gate_proj, weights.up_proj, weights.down_proj};
  for (size_t i = 0; i < matrices.size(); ++i) {
    status = ToStatus(cudaMemcpy(at + i * stride, matrices[i].data,
                                 matrices[i].bytes(), cudaMemcpyHostToDevice),
                      "uploading weights");
    if (!status.ok()) return status;
  }
  CudaLayer& added = model_.layers[layer];
  added.memory = *std::move(memory);
  added.gate_proj = at;
  added.up_proj = at + stride;
  added.down_proj = at + 2 * stride;
  weights_bytes_ += 3 * weights.gate_proj.bytes();
  return absl::OkStatus();
}

absl::Status CudaBackend::SetPathCosts(absl::Span<const PathCost> costs) {
  if (model_.sparse_form != SparseForm::kAuto) {
    return absl::FailedPreconditionError(
        "path costs: the form of sparse batches is fixed");
  }
  auto made = cuda::PathCosts::Make(costs);
  if (!made.ok()) return made.status();
  model_.path_costs = *std::move(made);
  return absl::OkStatus();
}

absl::Status CheckType(DataType weights_dtype) {
  if (weights_dtype != DataType::kFloat32) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "weights_dtype: the cuda backend takes float16 or bfloat16, got "
      "float32; convert with --weights-dtype bfloat16");
}

absl::Status CheckForm(const FfnConfig& config, SparseForm form) {
  if (!config.deterministic || form != SparseForm::kSteps) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "deterministic: the steps of sparse batches add up in any order");
}

absl::Status CheckMemory(const FfnConfig& config, int device,
                         const cudaDeviceProp& found) {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  absl::Status status = ToStatus(cudaMemGetInfo(&free_bytes, &total_bytes),
                                 "reading the device's free memory");
  if (!status.ok()) return status;
  const size_t matrix_bytes =
      AlignUp(config.intermediate_size * config.hidden_size *
              DataTypeBytes(config.weights_dtype));
  const size_t needed =
      config.num_layers * 3 * matrix_bytes +
      cuda::CudaSteps::DeviceBytes(config, found.multiProcessorCount) +
      kReserveBytes;
  if (needed <= free_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrFormat(
      "CUDA device %d (%s) is too small: %d layers need %.2f GB, %.2f of %.2f "
      "GB are free",
      device, found.name, config.num_layers, static_cast<double>(needed) / 1e9,
      static_cast<double>(free_bytes) / 1e9,
      static_cast<double>(total_bytes) / 1e9));
}

}  // namespace

absl::StatusOr<std::unique_ptr<FfnBackend>> NewCudaBackend(
    const FfnConfig& config, int device, SparseForm form) {
  absl::Status status = CheckConfig(config);
  if (status.ok()) status = CheckType(config.weights_dtype);
  if (status.ok()) status = CheckForm(config, form);
  if (!status.ok()) return status;
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    // The runtime says the same of a driver that is too old and of none.
    const char* none = error == cudaErrorInsufficientDriver
                           ? ", or no NVIDIA driver is installed"
                           : "";
    return absl::UnavailableError(absl::StrCat(
        "no usable CUDA device: ", cudaGetErrorString(error), none));
  }
  if (device < 0 || device >= count) {
    return absl::UnavailableError(absl::StrCat(
        "CUDA device ", device, " does not exist; ", count, " found"));
  }
  cudaDeviceProp found;
  status = ToStatus(cudaGetDeviceProperties(&found, device),
                    "cudaGetDeviceProperties");
  status.Update(ToStatus(cudaSetDevice(device), "cudaSetDevice"));
  if (!status.ok()) return status;
  if (found.major < kMinComputeMajor) {
    return absl::UnavailableError(absl::StrFormat(
        "CUDA device %d (%s) has compute capability %d.%d; 8.0 or newer is "
        "needed",
        device, found.name, found.major, found.minor));
  }
  status = CheckMemory(config, device, found);
  if (!status.ok()) return status;
  return std::make_unique<CudaBackend>(config, device, found, form);
}

}  // namespace sparse_ffn
