#include <cstdint>

#include "kernels/cuda/announce.cuh"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launch_outcome.h"

namespace sparse_ffn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxBlocks = 64;

__global__ void __launch_bounds__(kThreads) SmallCopy(const SmallCopyParams p) {
  WaitForPredecessor();
  const auto* from = static_cast<const uint4*>(p.from);
  auto* to = static_cast<uint4*>(p.to);
  for (int i = blockIdx.x * kThreads + threadIdx.x; i < p.packs;
       i += gridDim.x * kThreads) {
    to[i] = from[i];
  }
  if (p.done == nullptr) return;
  __syncthreads();
  if (threadIdx.x == 0) Announce(p.state, p.done, kNotAhead);
}

}  // namespace

cudaError_t LaunchSmallCopy(const SmallCopyParams& params,
                            cudaStream_t stream) {
  const int blocks = (params.packs + kThreads - 1) / kThreads;
  return LaunchDependent(
      SmallCopy, dim3(blocks < kMaxBlocks ? blocks : kMaxBlocks), kThreads, 0,
      params.device.dependent_launch, stream, params);
}

}  // namespace sparse_ffn::cuda
