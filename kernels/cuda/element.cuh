// Loads of weights and hidden states as float32, dot products, the activation.
#ifndef SPARSE_FFN_KERNELS_CUDA_ELEMENT_CUH_
#define SPARSE_FFN_KERNELS_CUDA_ELEMENT_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace sparse_ffn::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// Elements in one 16-byte load.
constexpr int kPack = 8;
constexpr int kPackBytes = 16;

// Whether a neuron with this gate score is active. A NaN score is, so both
// tests are negated.
__device__ inline bool IsActive(float score, float threshold) {
  return threshold > 0 ? !(score < threshold) : !(score <= 0);
}

__device__ inline float ToFloat(__half value) { return __half2float(value); }
__device__ inline float ToFloat(__nv_bfloat16 value) {
  return __bfloat162float(value);
}

__device__ inline float2 ToFloat2(uint32_t bits, const __half* /*tag*/) {
  __half2 pair;
  memcpy(&pair, &bits, sizeof(pair));
  return __half22float2(pair);
}
__device__ inline float2 ToFloat2(uint32_t bits, const __nv_bfloat16* /*tag*/) {
  return make_float2(__uint_as_float(bits << 16),
                     __uint_as_float(bits & 0xffff0000u));
}

// Eight consecutive elements, as they came from memory.
template <typename T>
struct Pack {
  uint4 bits;

  __device__ void Unpack(float (&out)[kPack]) const {
    const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = ToFloat2(words[i], static_cast<const T*>(nullptr));
      out[2 * i] = pair.x;
      out[2 * i + 1] = pair.y;
    }
  }
};

template <typename T>
__device__ inline float DotPacks(const Pack<T>& a, const Pack<T>& b) {
  float x[kPack];
  float y[kPack];
  a.Unpack(x);
  b.Unpack(y);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kPack; ++i) sum = fmaf(x[i], y[i], sum);
  return sum;
}

// The sum over the lanes of a warp, in all of them.
__device__ inline float SumOverWarp(float sum) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    sum += __shfl_xor_sync(kAllLanes, sum, offset);
  }
  return sum;
}

// Weights are read once: keep them out of L1, where the hidden states live.
// Volatile, so that the loads of a round stay together ahead of their use.
template <typename T>
__device__ inline Pack<T> LoadWeights(const T* address) {
  Pack<T> pack;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(pack.bits.x), "=r"(pack.bits.y), "=r"(pack.bits.z),
                 "=r"(pack.bits.w)
               : "l"(address));
  return pack;
}

// The same where `wanted`, else zeros. Neither a branch nor ld.global.nc, which
// the assembler moves at will: __syncwarp() after the loads of a round keeps
// them together ahead of their use.
template <typename T>
__device__ inline Pack<T> LoadWeightsIf(bool wanted, const T* address) {
  Pack<T> pack;
  asm volatile(
      "{\n"
      ".reg .pred wanted;\n"
      "setp.ne.u32 wanted, %5, 0;\n"
      "mov.u32 %0, 0;\n"
      "mov.u32 %1, 0;\n"
      "mov.u32 %2, 0;\n"
      "mov.u32 %3, 0;\n"
      "@wanted ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n"
      "}"
      : "=&r"(pack.bits.x), "=&r"(pack.bits.y), "=&r"(pack.bits.z),
        "=&r"(pack.bits.w)
      : "l"(address), "r"(static_cast<int>(wanted))
      : "memory");
  return pack;
}

template <typename T>
__device__ inline Pack<T> LoadHidden(const T* address) {
  return {*reinterpret_cast<const uint4*>(address)};
}

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_ELEMENT_CUH_
