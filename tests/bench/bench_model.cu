#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "tests/bench/bench_model.h"

namespace sparse_ffn::bench {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocks = 1024;

// Sum of four uniforms from a hash of (seed, index): near enough to normal.
__device__ float Random(uint64_t seed, uint64_t index) {
  uint64_t x = seed + (index + 1) * 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  x ^= x >> 31;
  float sum = -2.0f;
  for (int i = 0; i < 4; ++i) {
    sum += static_cast<float>((x >> (16 * i)) & 0xffff) / 65536.0f;
  }
  return sum * 1.7320508f;
}

__device__ void Store(void* data, size_t i, float value, bool half) {
  if (half) {
    static_cast<__half*>(data)[i] = __float2half_rn(value);
  } else {
    static_cast<__nv_bfloat16*>(data)[i] = __float2bfloat16_rn(value);
  }
}

__global__ void FillRandomKernel(void* data, size_t count, float scale,
                                 uint64_t seed, bool half) {
  const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = blockIdx.x * size_t{kThreads} + threadIdx.x; i < count;
       i += step) {
    Store(data, i, scale * Random(seed, i), half);
  }
}

__global__ void FillHiddenKernel(void* hidden, int tokens, int hidden_size,
                                 bool half) {
  const int token = blockIdx.x;
  for (int c = threadIdx.x; c < hidden_size; c += kThreads) {
    const size_t i = static_cast<size_t>(token) * hidden_size + c;
    const float value = c == token ? 1 : c < tokens ? 0 : Random(7, i);
    Store(hidden, i, value, half);
  }
}

__global__ void SetMaskKernel(void* gate, const uint8_t* mask, int tokens,
                              int n, int hidden_size, bool half) {
  const int token = blockIdx.y;
  const int neuron = blockIdx.x * kThreads + threadIdx.x;
  if (neuron >= n) return;
  const bool active = mask[static_cast<size_t>(token) * n + neuron] != 0;
  Store(gate, static_cast<size_t>(neuron) * hidden_size + token,
        active ? 1.0f : -1.0f, half);
}

__global__ void ReadAllKernel(const uint4* data, size_t count, int* sink) {
  uint32_t all = 0;
  const size_t step = static_cast<size_t>(gridDim.x) * kThreads;
#pragma unroll 8
  for (size_t i = blockIdx.x * size_t{kThreads} + threadIdx.x; i < count;
       i += step) {
    const uint4 v = __ldcs(data + i);
    all ^= v.x ^ v.y ^ v.z ^ v.w;
  }
  if (all == 0x12345678u) *sink = 1;
}

}  // namespace

cudaError_t FillRandom(void* data, size_t count, float scale, uint64_t seed,
                       bool half, cudaStream_t stream) {
  FillRandomKernel<<<kBlocks, kThreads, 0, stream>>>(data, count, scale, seed,
                                                     half);
  return cudaGetLastError();
}

cudaError_t FillHidden(void* hidden, int tokens, int hidden_size, bool half,
                       cudaStream_t stream) {
  FillHiddenKernel<<<tokens, kThreads, 0, stream>>>(hidden, tokens, hidden_size,
                                                    half);
  return cudaGetLastError();
}

cudaError_t SetMask(void* gate, const uint8_t* mask, int tokens, int n,
                    int hidden_size, bool half, cudaStream_t stream) {
  const dim3 grid((n + kThreads - 1) / kThreads, tokens);
  SetMaskKernel<<<grid, kThreads, 0, stream>>>(gate, mask, tokens, n,
                                               hidden_size, half);
  return cudaGetLastError();
}

cudaError_t ReadAll(const void* data, size_t bytes, int* sink, int sm_count,
                    cudaStream_t stream) {
  ReadAllKernel<<<sm_count * 8, kThreads, 0, stream>>>(
      static_cast<const uint4*>(data), bytes / 16, sink);
  return cudaGetLastError();
}

}  // namespace sparse_ffn::bench
