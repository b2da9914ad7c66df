// The sum warps of fused_bulk.cu: up products, and the sum of h times the down
// rows.
#ifndef SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_SUM_CUH_
#define SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_SUM_CUH_

#include "kernels/cuda/fused_bulk_block.cuh"

#if __CUDA_ARCH__ >= 900

namespace sparse_ffn::cuda {

// dots[t] = row · hidden_states[t] by all sum warps, in all of their threads.
// `turn` alternates. kPacks: most packs of a row that fall to a thread.
template <typename T, int kTokens, int kPacks>
__device__ void DotBySumWarps(const DotOperands& in, int turn,
                              float (&dots)[kTokens]) {
  auto& up_sums = Block<kTokens>::head().up_sums[turn];
  const int thread = threadIdx.x - kGateWarps * kWarp;
  WarpDot<T, kTokens, 1> dot;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int segment = thread / kWarp + k * kSumWarps;
    if (segment * kWarp >= in.packs) break;
    dot.Add(in, segment, 0);
  }
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    const float sum = dot.Sum(t);
    if (thread % kWarp == 0) up_sums[thread / kWarp][t] = sum;
  }
  asm volatile("bar.sync 1, %0;" ::"n"(kSumThreads) : "memory");
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    dots[t] = (up_sums[0][t] + up_sums[1][t]) + (up_sums[2][t] + up_sums[3][t]);
  }
}

// Sums of h times down rows. A thread has four columns in every
// 4 kSumThreads: what a warp leaves at once lies side by side.
template <typename T, int kTokens, int kPacks>
struct DownSums {
  static constexpr int kQuads = 2 * kPacks;
  static constexpr int kQuad = 4;
  float sums[kTokens][kQuads][kQuad] = {};

  __device__ void Add(const std::byte* row, const float (&h)[kTokens],
                      int quads) {
    const int thread = threadIdx.x - kGateWarps * kWarp;
#pragma unroll
    for (int k = 0; k < kQuads; ++k) {
      const int at = thread + k * kSumThreads;
      if (at >= quads) break;
      const uint2 bits = reinterpret_cast<const uint2*>(row)[at];
      const float2 low = ToFloat2(bits.x, static_cast<const T*>(nullptr));
      const float2 high = ToFloat2(bits.y, static_cast<const T*>(nullptr));
      const float w[kQuad] = {low.x, low.y, high.x, high.y};
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        if (h[t] == 0) continue;
#pragma unroll
        for (int c = 0; c < kQuad; ++c) {
          sums[t][k][c] = fmaf(h[t], w[c], sums[t][k][c]);
        }
      }
    }
  }
  // To the block's part of a token.
  __device__ void Store(float* part, int token, int quads) const {
    const int thread = threadIdx.x - kGateWarps * kWarp;
#pragma unroll
    for (int k = 0; k < kQuads; ++k) {
      const int at = thread + k * kSumThreads;
      if (at >= quads) break;
      const float(&s)[kQuad] = sums[token][k];
      reinterpret_cast<float4*>(part)[at] = make_float4(s[0], s[1], s[2], s[3]);
    }
  }
};

template <typename T, int kTokens, int kPacks>
__device__ void RunSumWarp(const FusedBulkParams& p) {
  auto& head = Block<kTokens>::head();
  const int quads = p.hidden_size / 4;
  DownSums<T, kTokens, kPacks> sums;
  RingPlace place;
  const auto row = [&] { return Block<kTokens>::ListSlot(p, place.slot); };
  const auto release = [&] {
    FreeListSlot(place.slot);
    place.Advance(p.list_slots);
  };
  Wait(&head.hidden_full, 0);
  for (int turn = 0;; turn ^= 1) {
    Wait(&head.list_full[place.slot], place.parity);
    if (head.list_ends[place.slot] != 0) break;
    float h[kTokens];
    float up[kTokens];
#pragma unroll
    for (int t = 0; t < kTokens; ++t) h[t] = head.list_scores[place.slot][t];
    DotBySumWarps<T, kTokens, kPacks>(Block<kTokens>::Operands(p, row()), turn,
                                      up);
    release();
    bool any = false;
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      if (p.clamp_up && up[t] <= 0) up[t] = 0;
      if (h[t] != 0) h[t] *= up[t];  // True of NaN.
      any = any || h[t] != 0;
    }
    Wait(&head.list_full[place.slot], place.parity);
    if (any) sums.Add(row(), h, quads);
    release();
  }
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    sums.Store(p.parts + (static_cast<size_t>(blockIdx.x) * kTokens + t) *
                             p.part_stride,
               t, quads);
  }
}

}  // namespace sparse_ffn::cuda

#endif  // __CUDA_ARCH__ >= 900

#endif  // SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_SUM_CUH_
