// Small copies between the device and the host, one of which waits for its
// batch.
#include <cstdint>

#include "kernels/cuda/ahead.cuh"
#include "kernels/cuda/announce.cuh"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/load_if.cuh"

namespace sparse_ffn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxBlocks = 64;

__global__ void __launch_bounds__(kThreads) SmallCopy(const SmallCopyParams p) {
  WaitForPredecessor();
  const bool left = WasLeft(p.state, p.ahead.number);
  const auto* from = static_cast<const uint4*>(p.from);
  auto* to = static_cast<uint4*>(p.to);
  for (int i = blockIdx.x * kThreads + threadIdx.x; i < p.packs && !left;
       i += gridDim.x * kThreads) {
    to[i] = from[i];
  }
  if (p.done == nullptr) return;
  __syncthreads();
  if (threadIdx.x == 0) Announce(p.state, p.done, p.ahead.number, left);
}

// One block, since all of a copy has to hear the same. For up to 8 tokens, not
// in order, it leaves room for one of LaunchFusedGatedUpRows beside it; else
// that one starts when the copy has ended.
constexpr int kAheadThreads = 512;
constexpr int kAheadBlocks = 3;  // That a multiprocessor has registers for.
constexpr int kLoads = 6;        // Of a thread on their way at once.

__global__ void __launch_bounds__(kAheadThreads, kAheadBlocks)
    SmallCopyAhead(const SmallCopyParams p) {
  __shared__ bool left;
  WaitForPredecessor();
  const auto thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    left = !AwaitWord(p.ahead);
    if (left) p.state->left = p.ahead.number;
  }
  __syncthreads();
  if (left) return;
  const auto* from = static_cast<const uint4*>(p.from);
  auto* to = static_cast<uint4*>(p.to);
  for (int first = thread; first < p.packs; first += kLoads * kAheadThreads) {
    uint4 packs[kLoads];
#pragma unroll
    for (int k = 0; k < kLoads; ++k) {
      const int i = first + k * kAheadThreads;
      packs[k] = LoadIf<LoadFrom::kMemory>(i < p.packs, from + i);
    }
#pragma unroll
    for (int k = 0; k < kLoads; ++k) {
      const int i = first + k * kAheadThreads;
      if (i < p.packs) to[i] = packs[k];
    }
  }
}

}  // namespace

cudaError_t LaunchSmallCopy(const SmallCopyParams& params,
                            cudaStream_t stream) {
  if (params.ahead.word != nullptr) {
    return LaunchDependent(SmallCopyAhead, dim3(1), kAheadThreads, 0,
                           params.device.dependent_launch, stream, params);
  }
  const int blocks = (params.packs + kThreads - 1) / kThreads;
  return LaunchDependent(
      SmallCopy, dim3(blocks < kMaxBlocks ? blocks : kMaxBlocks), kThreads, 0,
      params.device.dependent_launch, stream, params);
}

}  // namespace sparse_ffn::cuda
