// Times the paths of a CUDA model.
#ifndef SPARSE_FFN_KERNELS_CUDA_CUDA_MEASURE_H_
#define SPARSE_FFN_KERNELS_CUDA_CUDA_MEASURE_H_

#include <cstddef>
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

// Runs a batch as one of a server, to be timed: the processor has written the
// hidden states (here as they were), and reads the output, so that the device
// finds both in the processor's caches; and some time has passed since the
// batch before. A lane has a result before the device is done with all that
// belongs to a batch, and the next one must not be timed with that.
absl::StatusOr<FfnResult> RunAsServed(FfnLane* lane, int layer, size_t tokens,
                                      Execution execution);

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_CUDA_MEASURE_H_
