// Adds up the parts of the output that the blocks of a launch left, in groups.
// The order depends on nothing but the sizes, the groups and the device.
#include <algorithm>

#include "kernels/cuda/add_quad.cuh"
#include "kernels/cuda/ahead.cuh"
#include "kernels/cuda/announce.cuh"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/launch_fused.h"

namespace sparse_ffn::cuda {
namespace {

// Small blocks, one a multiprocessor for each token: they wait there beside
// blocks of fused launches. Where they take too much, which beside two of those
// is 5 KB of shared memory, those of the next launch start late. Where those
// take too much, which of one token made ahead, in 13 warps, is more than 104
// registers a thread, these start late, by a microsecond.
constexpr int kThreads = 128;
constexpr int kQuad = 4;      // Columns that a thread adds up.
constexpr int kMinQuads = 8;  // Of a block: 128 bytes of each part.
constexpr int kMaxQuads = 32;

// Loads that a thread has in flight at once, blocks of a multiprocessor that
// leave registers for them, and whether all that a block stores is the first
// warp's.
struct InGroups {
  // All parts of a group where there are 132 of them and 12 groups.
  static constexpr int kLoads = 11;
  static constexpr int kMinBlocks = 7;
  static constexpr bool kFirstWarpStores = true;
  static_assert(kMaxQuads <= kWarp && 1 + kOneKernelTokens <= kWarp);
};
struct OneGroup {
  // All parts: those of LaunchOrderedDown, at most as many as SumGroups() can
  // be.
  static constexpr int kLoads = kThreads / kMinQuads;
  static constexpr int kMinBlocks = 5;
  static constexpr bool kFirstWarpStores = false;
};

// Volatile, so that the loads of a round stay together ahead of their use.
__device__ float4 LoadPart(const float4* address) {
  float4 part;
  asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(part.x), "=f"(part.y), "=f"(part.z), "=f"(part.w)
               : "l"(address));
  return part;
}

__device__ void SumActive(const FusedSumParams& p, bool left) {
  __shared__ int active[1 + kBatchFormTokens];
  static_assert(1 + kBatchFormTokens <= kThreads);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread <= p.tokens) active[thread] = 0;
  __syncthreads();
  for (int i = thread; i < p.active_count * (1 + p.tokens); i += kThreads) {
    atomicAdd(&active[i % (1 + p.tokens)], p.active[i]);
  }
  __syncthreads();
  if (thread <= p.tokens && !left) p.counters[thread] = active[thread];
}

__device__ void Store(const FusedSumParams& p, int token, int quad,
                      const float4& sum) {
  float* output = p.output + static_cast<size_t>(token) * p.hidden_size;
  const int column = kQuad * quad;
  if (p.hidden_size % kQuad == 0) {
    reinterpret_cast<float4*>(output)[quad] = sum;
    return;
  }
  const float values[kQuad] = {sum.x, sum.y, sum.z, sum.w};
#pragma unroll
  for (int c = 0; c < kQuad; ++c) {
    if (column + c < p.hidden_size) output[column + c] = values[c];
  }
}

struct SumParams : FusedSumParams {
  int token_blocks;
  int quads;  // Of a block.
};

// Threads side by side take columns side by side, and groups of such threads
// take parts in turn, in the order that LaunchOrderedDown knows. The first
// group stores.
template <int kLoads>
__device__ void SumColumns(const SumParams& p, bool left) {
  __shared__ float4 sums[kThreads];
  const int thread = static_cast<int>(threadIdx.x);
  const int groups = p.groups;
  const int group = thread / p.quads;
  const int place = thread % p.quads;
  const int token = static_cast<int>(blockIdx.x) / p.token_blocks;
  const int quad =
      static_cast<int>(blockIdx.x) % p.token_blocks * p.quads + place;
  const int token_stride = p.part_stride / kQuad;
  const int stride = token_stride * p.tokens;
  const bool exists = group < groups && quad < token_stride;
  const auto* parts =
      reinterpret_cast<const float4*>(p.parts) + token * token_stride + quad;
  float4 sum = {};
  for (int b0 = group; b0 < p.part_count; b0 += kLoads * groups) {
    float4 part[kLoads] = {};
#pragma unroll
    for (int k = 0; k < kLoads; ++k) {
      const int b = b0 + k * groups;
      if (exists && b < p.part_count) {
        part[k] = LoadPart(parts + static_cast<size_t>(b) * stride);
      }
    }
#pragma unroll
    for (int k = 0; k < kLoads; ++k) AddQuad(&sum, part[k]);
  }
  sums[thread] = sum;
  __syncthreads();
  if (group > 0 || !exists || left) return;
  for (int g = 1; g < groups; ++g) AddQuad(&sum, sums[g * p.quads + place]);
  Store(p, token, quad, sum);
}

// A block has some columns of one token; the last one counts the active neurons
// instead.
template <typename Form>
__global__ void __launch_bounds__(kThreads, Form::kMinBlocks)
    FusedSum(const __grid_constant__ SumParams p) {
  WaitForPredecessor();
  const bool left = WasLeft(p.state, p.ahead_number);
  if (blockIdx.x + 1 == gridDim.x) {
    if (p.active != nullptr) SumActive(p, left);
  } else {
    SumColumns<Form::kLoads>(p, left);
  }
  if (p.done == nullptr) return;
  if constexpr (Form::kFirstWarpStores) {
    if (threadIdx.x >= kWarp) return;
    __syncwarp();
  } else {
    __syncthreads();
  }
  if (threadIdx.x == 0) Announce(p.state, p.done, p.ahead_number, left);
}

// Of a block that adds up one token in groups.
int GroupQuads(int sm_count, int hidden_size) {
  const int all = (hidden_size + kQuad - 1) / kQuad;
  const int fit = std::max(sm_count - 1, 1);
  return std::clamp((all + fit - 1) / fit, kMinQuads, kMaxQuads);
}

}  // namespace

int SumGroups(int sm_count, int hidden_size) {
  return kThreads / GroupQuads(sm_count, hidden_size);
}

cudaError_t PrepareFusedSum() {
  for (const auto kernel : {FusedSum<InGroups>, FusedSum<OneGroup>}) {
    cudaFuncAttributes attributes;
    const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t LaunchFusedSum(const FusedSumParams& params, cudaStream_t stream) {
  const int all = (params.part_stride + kQuad - 1) / kQuad;
  const int quads = params.groups == 1 ? kThreads
                                       : GroupQuads(params.device.sm_count,
                                                    params.hidden_size);
  const SumParams sum = {params, (all + quads - 1) / quads, quads};
  return LaunchDependent(
      params.groups == 1 ? FusedSum<OneGroup> : FusedSum<InGroups>,
      dim3(params.tokens * sum.token_blocks + 1), kThreads, 0,
      params.device.dependent_launch, stream, sum);
}

}  // namespace sparse_ffn::cuda
