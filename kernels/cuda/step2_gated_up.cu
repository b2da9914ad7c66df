#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/launch_steps.h"

namespace sparse_ffn::cuda {
namespace {

constexpr int kThreads = 256;
// Elements of a cache line.
constexpr int kLine = 64;

// Loads of a row in flight at once in each lane.
template <int kTokens>
constexpr int kLoads = kTokens <= 2 ? 8 : 4;

// Adds this lane's share of row · x[t] to sums[t]. Lanes stand side by side, so
// that a warp reads 512 consecutive bytes; all loads of a round are issued
// before the first is used.
template <typename T, int kTokens>
__device__ void DotAligned(const T* row, const T* x, int hidden_size,
                           int tokens, float (&sums)[kTokens]) {
  constexpr int kStep = kWarp * kPack;
  constexpr int kRound = kLoads<kTokens>;
  for (int c0 = (threadIdx.x % kWarp) * kPack; c0 < hidden_size;
       c0 += kRound * kStep) {
    Pack<T> weights[kRound];
#pragma unroll
    for (int k = 0; k < kRound; ++k) {
      weights[k].bits = make_uint4(0, 0, 0, 0);
      if (c0 + k * kStep < hidden_size) {
        weights[k] = LoadWeights(row + c0 + k * kStep);
      }
    }
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      if (t >= tokens) break;
      const T* hidden = x + static_cast<size_t>(t) * hidden_size + c0;
      Pack<T> values[kRound];
#pragma unroll
      for (int k = 0; k < kRound; ++k) {
        values[k].bits = make_uint4(0, 0, 0, 0);
        if (c0 + k * kStep < hidden_size) {
          values[k] = LoadHidden(hidden + k * kStep);
        }
      }
#pragma unroll
      for (int k = 0; k < kRound; ++k) {
        sums[t] += DotPacks(weights[k], values[k]);
      }
    }
  }
}

template <typename T, int kTokens>
__device__ void DotUnaligned(const T* row, const T* x, int hidden_size,
                             int tokens, float (&sums)[kTokens]) {
  for (int c = threadIdx.x % kWarp; c < hidden_size; c += kWarp) {
    const float w = ToFloat(row[c]);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      if (t >= tokens) break;
      sums[t] = fmaf(w, ToFloat(x[static_cast<size_t>(t) * hidden_size + c]),
                     sums[t]);
    }
  }
}

// One warp a listed neuron and block of kTokens tokens; blockIdx.y counts the
// blocks of tokens.
template <typename T, int kTokens, bool kAligned>
__global__ void __launch_bounds__(kThreads) GatedUp(const GatedUpParams p) {
  const int lane = threadIdx.x % kWarp;
  const int first_token = blockIdx.y * kTokens;
  const int tokens = min(kTokens, p.tokens - first_token);
  const T* x = static_cast<const T*>(p.hidden_states) +
               static_cast<size_t>(first_token) * p.hidden_size;
  // Written before the gate ran, so that there is nothing to wait for.
  for (int c = threadIdx.x * kLine; c < tokens * p.hidden_size;
       c += kThreads * kLine) {
    asm volatile("prefetch.global.L1 [%0];" ::"l"(x + c));
  }
  WaitForPredecessor();
  const int count = *p.union_count;
  const int warps = gridDim.x * (kThreads / kWarp);
  for (int i = (blockIdx.x * kThreads + threadIdx.x) / kWarp; i < count;
       i += warps) {
    const int neuron = p.union_list[i];
    const T* row = static_cast<const T*>(p.up_proj) +
                   static_cast<size_t>(neuron) * p.hidden_size;
    float sums[kTokens] = {};
    if constexpr (kAligned) {
      DotAligned<T, kTokens>(row, x, p.hidden_size, tokens, sums);
    } else {
      DotUnaligned<T, kTokens>(row, x, p.hidden_size, tokens, sums);
    }
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      float sum = SumOverWarp(sums[t]);
      if (lane == 0 && t < tokens) {
        const float score = p.scores[static_cast<size_t>(first_token + t) *
                                         p.intermediate_size +
                                     neuron];
        if (p.clamp_up && sum <= 0) sum = 0;
        p.gated[static_cast<size_t>(i) * p.tokens + first_token + t] =
            score == 0 ? 0 : score * sum;
      }
    }
  }
}

}  // namespace

cudaError_t LaunchGatedUp(const GatedUpParams& params, cudaStream_t stream) {
  return DispatchElement(params.element, [&](auto element) {
    return DispatchTokenBlock(params.tokens, [&](auto token_block) {
      using T = decltype(element);
      constexpr int kTokens = decltype(token_block)::value;
      const dim3 grid(params.device.sm_count * 3,
                      (params.tokens + kTokens - 1) / kTokens);
      const auto kernel = RowsAligned(params.hidden_size)
                              ? GatedUp<T, kTokens, true>
                              : GatedUp<T, kTokens, false>;
      return LaunchDependent(kernel, grid, kThreads, 0,
                             params.device.dependent_launch, stream, params);
    });
  });
}

}  // namespace sparse_ffn::cuda
