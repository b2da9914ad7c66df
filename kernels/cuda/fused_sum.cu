// Adds up the parts of the output that the blocks of a fused launch left. The
// order depends on nothing but their number.
#include <algorithm>

#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/launch.h"

namespace sparse_ffn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kQuad = 4;   // Columns that a thread adds up.
constexpr int kLoads = 6;  // In flight at once in each thread.
// Leaves room for a block of a fused launch on the multiprocessor.
constexpr int kMinBlocks = 6;

// Volatile, so that the loads of a round stay together ahead of their use.
__device__ float4 LoadPart(const float4* address) {
  float4 part;
  asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(part.x), "=f"(part.y), "=f"(part.z), "=f"(part.w)
               : "l"(address));
  return part;
}

__device__ void Add(const float4& a, float4* sum) {
  sum->x += a.x;
  sum->y += a.y;
  sum->z += a.z;
  sum->w += a.w;
}

struct SumParams : FusedSumParams {
  int quads;  // Of a block, at most kThreads.
};

// Threads side by side take columns side by side, and groups of such threads
// take parts in turn.
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    FusedSum(const __grid_constant__ SumParams p) {
  __shared__ float4 group_sums[kThreads];
  __shared__ int active;
  const int thread = threadIdx.x;
  if (thread == 0) active = 0;
  __syncthreads();
  WaitForPredecessor();
  const int groups = kThreads / p.quads;
  const int group = thread / p.quads;
  const int quad = blockIdx.x * p.quads + thread % p.quads;
  const int stride = p.part_stride / kQuad;
  float4 sum = {};
  if (group < groups && quad < stride) {
    const auto* parts = reinterpret_cast<const float4*>(p.parts) + quad;
    for (int b0 = group; b0 < p.blocks; b0 += kLoads * groups) {
      float4 part[kLoads] = {};
#pragma unroll
      for (int k = 0; k < kLoads; ++k) {
        const int b = b0 + k * groups;
        if (b < p.blocks) {
          part[k] = LoadPart(parts + static_cast<size_t>(b) * stride);
        }
      }
#pragma unroll
      for (int k = 0; k < kLoads; ++k) Add(part[k], &sum);
    }
  }
  group_sums[thread] = sum;
  if (blockIdx.x == 0) {
    for (int b = thread; b < p.blocks; b += kThreads) {
      atomicAdd(&active, p.active[b]);
    }
  }
  __syncthreads();
  if (thread < p.quads && quad < stride) {
    for (int g = 1; g < groups; ++g) {
      Add(group_sums[g * p.quads + thread], &sum);
    }
    const int column = kQuad * quad;
    if (column + kQuad <= p.hidden_size) {
      reinterpret_cast<float4*>(p.output)[quad] = sum;
    } else {
      const float values[kQuad] = {sum.x, sum.y, sum.z, sum.w};
      for (int c = column; c < p.hidden_size; ++c) {
        p.output[c] = values[c - column];
      }
    }
  }
  if (blockIdx.x == 0 && thread == 0) {
    p.counters[0] = p.counters[1] = active;
  }
}

}  // namespace

cudaError_t LaunchFusedSum(const FusedSumParams& params, cudaStream_t stream) {
  const int quads = params.part_stride / kQuad;
  SumParams sum = {params, 0};
  // One block a multiprocessor, as far as that goes.
  sum.quads =
      std::clamp((quads + params.device.sm_count - 1) / params.device.sm_count,
                 1, kThreads);
  return LaunchDependent(FusedSum, dim3((quads + sum.quads - 1) / sum.quads),
                         kThreads, 0, params.device.dependent_launch, stream,
                         sum);
}

}  // namespace sparse_ffn::cuda
