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

// Lets some time pass, as it does between the batches of a server. A lane has a
// result before the device is done with all that belongs to the batch, and the
// next one must not be timed with that.
void Settle();

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_CUDA_MEASURE_H_
