#include "kernels/cuda/clear.cuh"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/launch_steps.h"

namespace sparse_ffn::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kLoads = 16;  // Scores in flight at once in each thread.

// One thread a neuron.
__global__ void __launch_bounds__(kThreads)
    SelectActive(const SelectActiveParams p) {
  extern __shared__ int token_count[];  // [tokens]
  WaitForPredecessor();
  for (int t = threadIdx.x; t < p.tokens; t += kThreads) token_count[t] = 0;
  ClearForBatch<kThreads>(p, p.output_size);
  __syncthreads();

  const int neuron = blockIdx.x * kThreads + threadIdx.x;
  const int lane = threadIdx.x % kWarp;
  const bool exists = neuron < p.intermediate_size;
  bool in_union = false;
  for (int t0 = 0; t0 < p.tokens; t0 += kLoads) {
    float* scores =
        p.scores + static_cast<size_t>(t0) * p.intermediate_size + neuron;
    const int tokens = min(kLoads, p.tokens - t0);
    float score[kLoads];
#pragma unroll
    for (int t = 0; t < kLoads; ++t) {
      if (exists && t < tokens) {
        score[t] = scores[static_cast<size_t>(t) * p.intermediate_size];
      }
    }
#pragma unroll
    for (int t = 0; t < kLoads; ++t) {
      if (t >= tokens) break;
      const bool active = exists && IsActive(score[t], p.threshold);
      if (exists && !active) {
        scores[static_cast<size_t>(t) * p.intermediate_size] = 0;
      }
      in_union |= active;
      const unsigned mask = __ballot_sync(kAllLanes, active);
      if (lane == 0 && mask != 0) atomicAdd(&token_count[t0 + t], __popc(mask));
    }
  }

  const unsigned mask = __ballot_sync(kAllLanes, in_union);
  int first = 0;
  if (lane == 0 && mask != 0) first = atomicAdd(p.counters, __popc(mask));
  first = __shfl_sync(kAllLanes, first, 0);
  if (in_union) {
    p.union_list[first + __popc(mask & ((1u << lane) - 1))] = neuron;
  }

  __syncthreads();
  for (int t = threadIdx.x; t < p.tokens; t += kThreads) {
    if (token_count[t] != 0) atomicAdd(&p.counters[1 + t], token_count[t]);
  }
}

}  // namespace

cudaError_t LaunchSelectActive(const SelectActiveParams& params,
                               cudaStream_t stream) {
  const int blocks = (params.intermediate_size + kThreads - 1) / kThreads;
  const size_t shared_bytes = params.tokens * sizeof(int);
  return LaunchDependent(SelectActive, dim3(blocks), kThreads, shared_bytes,
                         params.device.dependent_launch, stream, params);
}

}  // namespace sparse_ffn::cuda
