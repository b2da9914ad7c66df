// Times the paths of a CUDA model.
#ifndef SPARSE_FFN_KERNELS_CUDA_CUDA_MEASURE_H_
#define SPARSE_FFN_KERNELS_CUDA_CUDA_MEASURE_H_

#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda/cuda_model.h"
#include "kernels/ffn_backend.h"

namespace sparse_ffn::cuda {

// As FfnBackend::MeasurePaths, over the layers of `model`, on a lane of its
// own. Changes nothing in `model`, its density estimates included.
absl::StatusOr<std::vector<PathCost>> MeasureCudaPaths(
    const CudaModel& model, double seconds,
    const std::function<void()>& progress);

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_CUDA_MEASURE_H_
