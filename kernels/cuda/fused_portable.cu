// The FFN of one token in one kernel, of any size on any device: the same
// division of work as the bulk form, without the copy engine.
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/launch_fused.h"

namespace sparse_ffn::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;
constexpr int kLoads = 8;    // Of a row, in flight at once in each lane.
constexpr int kRound = 128;  // Neurons whose scores and ups go before downs.

// row · x, in every lane of the warp.
template <typename T, bool kAligned>
__device__ float Dot(const T* row, const T* x, int hidden_size) {
  const int lane = threadIdx.x % kWarp;
  float sum = 0;
  if constexpr (kAligned) {
    constexpr int kStep = kWarp * kPack;
    for (int c0 = lane * kPack; c0 < hidden_size; c0 += kLoads * kStep) {
      Pack<T> weights[kLoads];
#pragma unroll
      for (int k = 0; k < kLoads; ++k) {
        weights[k].bits = make_uint4(0, 0, 0, 0);
        if (c0 + k * kStep < hidden_size) {
          weights[k] = LoadWeights(row + c0 + k * kStep);
        }
      }
#pragma unroll
      for (int k = 0; k < kLoads; ++k) {
        if (c0 + k * kStep < hidden_size) {
          sum += DotPacks(weights[k], LoadHidden(x + c0 + k * kStep));
        }
      }
    }
  } else {
    for (int c = lane; c < hidden_size; c += kWarp) {
      sum = fmaf(ToFloat(row[c]), ToFloat(x[c]), sum);
    }
  }
  return SumOverWarp(sum);
}

// A block takes neurons blockIdx.x + i * gridDim.x, in rounds of kRound: first
// h of each, one warp a neuron, then all threads add h times the down rows,
// each to columns of its own.
template <typename T, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    FusedPortable(const FusedTokensParams p) {
  __shared__ float gated[kRound];
  __shared__ int block_active;
  const int thread = threadIdx.x;
  const auto* x = static_cast<const T*>(p.hidden_states);
  const auto row = [&p](const void* matrix, int neuron) {
    return static_cast<const T*>(matrix) +
           static_cast<size_t>(neuron) * p.hidden_size;
  };
  float* part = p.parts + static_cast<size_t>(blockIdx.x) * p.part_stride;
  int active = 0;  // Of this warp.
  if (thread == 0) block_active = 0;
  WaitForPredecessor();
  for (int first = blockIdx.x; first < p.intermediate_size;
       first += kRound * gridDim.x) {
    for (int i = thread / kWarp; i < kRound; i += kWarps) {
      const int neuron = first + i * gridDim.x;
      float h = 0;
      bool is_active = false;
      if (neuron < p.intermediate_size) {
        const float score =
            Dot<T, kAligned>(row(p.gate_proj, neuron), x, p.hidden_size);
        is_active = IsActive(score, p.threshold);
        if (is_active) {
          float up = Dot<T, kAligned>(row(p.up_proj, neuron), x, p.hidden_size);
          if (p.clamp_up && up <= 0) up = 0;
          h = score * up;
        }
      }
      if (thread % kWarp == 0) gated[i] = h;
      active += is_active ? 1 : 0;
    }
    __syncthreads();
    for (int c = thread; c < p.hidden_size; c += kThreads) {
      float sum = first == static_cast<int>(blockIdx.x) ? 0 : part[c];
      for (int i = 0; i < kRound; ++i) {
        if (gated[i] == 0) continue;
        const int neuron = first + i * gridDim.x;
        sum = fmaf(gated[i], ToFloat(row(p.down_proj, neuron)[c]), sum);
      }
      part[c] = sum;
    }
    __syncthreads();
  }
  if (thread % kWarp == 0) atomicAdd(&block_active, active);
  __syncthreads();
  if (thread < 2) p.active[2 * blockIdx.x + thread] = block_active;
}

}  // namespace

cudaError_t LaunchFusedPortable(const FusedTokensParams& params,
                                cudaStream_t stream) {
  return DispatchElement(params.element, [&](auto element) {
    using T = decltype(element);
    const auto kernel = RowsAligned(params.hidden_size)
                            ? FusedPortable<T, true>
                            : FusedPortable<T, false>;
    return LaunchDependent(
        kernel, dim3(FusedBlocks(params.device, params.intermediate_size)),
        kThreads, 0, params.device.dependent_launch, stream, params);
  });
}

}  // namespace sparse_ffn::cuda
