// What the lanes of one CUDA backend share: the uploaded layers and the device.
#ifndef SPARSE_FFN_KERNELS_CUDA_CUDA_MODEL_H_
#define SPARSE_FFN_KERNELS_CUDA_CUDA_MODEL_H_

#include <atomic>
#include <cstddef>
#include <map>

#include "kernels/cuda/cuda_handles.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/path_costs.h"
#include "kernels/cuda/union_density.h"
#include "kernels/ffn_backend.h"

namespace sparse_ffn::cuda {

// Three matrices [intermediate, hidden] in one allocation; each starts on a
// 256-byte boundary.
struct CudaLayer {
  DeviceMemory memory;
  const void* gate_proj = nullptr;
  const void* up_proj = nullptr;
  const void* down_proj = nullptr;
  mutable UnionDensity union_density;
};

// Constant while lanes run, but for the density estimates and the number of
// lanes, which are atomic.
struct CudaModel {
  FfnConfig config;
  Element element = Element::kBFloat16;
  SparseForm sparse_form = SparseForm::kAuto;
  int device = 0;
  Device device_traits = {};
  std::map<int, CudaLayer> layers;
  PathCosts path_costs;
  mutable std::atomic<int> lanes = 0;  // That there are.
};

// Rounds up to the alignment of every buffer on the device.
constexpr size_t AlignUp(size_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_CUDA_MODEL_H_
