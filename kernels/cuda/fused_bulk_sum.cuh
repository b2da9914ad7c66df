// The sum warps of fused_bulk.cu: up products, and the sum of h times the down
// rows.
#ifndef SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_SUM_CUH_
#define SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_SUM_CUH_

#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/fused_bulk_block.cuh"

#if __CUDA_ARCH__ >= 900

namespace sparse_ffn::cuda {

// dots[t] = row · hidden_states[t] by all sum warps, in all of their threads.
// `turn` alternates. kPacks: most packs of a row that fall to a thread.
template <typename T, int kTokens, int kPacks>
__device__ void DotBySumWarps(const DotOperands& in, int turn,
                              float (&dots)[kTokens]) {
  auto& up_sums = Block<kTokens>::head().up_sums[turn];
  const int thread = threadIdx.x;
  WarpDot<T, kTokens, DotOrder::kFast> dot;
#pragma unroll(kTokens == 1 && kPacks <= 5 ? kPacks : 2)
  for (int k = 0; k < kPacks; ++k) dot.Add(in, thread / kWarp + k * kSumWarps);
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    const float sum = dot.Sum(t);
    if (thread % kWarp == 0) up_sums[thread / kWarp][t] = sum;
  }
  SyncSumWarps();
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    dots[t] = (up_sums[0][t] + up_sums[1][t]) + (up_sums[2][t] + up_sums[3][t]);
  }
}

// What this warp multiplies of a row of up_proj, to the bits of
// DotOrder::kInOrder: the sum warps share the segments.
template <typename T, int kTokens, int kPacks>
__device__ void MultiplyUpRow(const DotOperands& in,
                              UpProducts<kTokens, kPacks>& products) {
  using Dot = WarpDot<T, kTokens, DotOrder::kInOrder>;
  constexpr int kWarpSegments = UpProducts<kTokens, kPacks>::kWarpSegments;
  const int share = threadIdx.x % kWarp / 4;
  const int warp = threadIdx.x / kWarp;
  // Segments at once, as were fastest: of two tokens three where they divide
  // the number. Of one few enough that a launch made ahead leaves registers for
  // a block of LaunchFusedSum.
  constexpr int kGroup = kTokens == 1 || kWarpSegments % 3 == 0 ? 3 : 2;
#pragma unroll
  for (int first = 0; first < kWarpSegments; first += kGroup) {
    float chunks[kGroup][kTokens];
#pragma unroll
    for (int k = 0; k < kGroup && first + k < kWarpSegments; ++k) {
      Dot::MultiplyChunks(in, warp + (first + k) * kSumWarps, chunks[k]);
    }
    if (Dot::OnDiagonal()) {
#pragma unroll
      for (int k = 0; k < kGroup && first + k < kWarpSegments; ++k) {
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
          products.of[t][share][warp + (first + k) * kSumWarps] = chunks[k][t];
        }
      }
    }
  }
  __syncwarp();
}

// The sum of those of `token`, in all of its kShareLanes lanes. `exists`: else
// it is 0.
template <int kTokens, int kPacks>
__device__ float AddUpProducts(const UpProducts<kTokens, kPacks>& products,
                               int token, bool exists) {
  const int share = threadIdx.x % kShareLanes;
  float sum = 0;
  if (exists && share < kDotShares) {
    const auto* quads =
        reinterpret_cast<const float4*>(products.of[token][share]);
    constexpr int kSegments = UpProducts<kTokens, kPacks>::kSegments;
    static_assert(kSegments % 4 == 0);
#pragma unroll
    for (int q = 0; q < kSegments / 4; ++q) {
      const float4 quad = quads[q];
      sum += quad.x;
      sum += quad.y;
      sum += quad.z;
      sum += quad.w;
    }
  }
  return AddShareLanes(sum);
}

// As DotBySumWarps, to the bits of DotOrder::kInOrder.
template <typename T, int kTokens, int kPacks>
__device__ void DotBySumWarpsInOrder(const FusedBulkParams& p,
                                     const DotOperands& in, int turn,
                                     float (&dots)[kTokens]) {
  auto& products = Block<kTokens>::template Products<kPacks>(p)[turn];
  MultiplyUpRow<T>(in, products);
  SyncSumWarps();
  const int lane = threadIdx.x % kWarp;
  const int token = lane / kShareLanes;
  const float sum = AddUpProducts(products, token, token < kTokens);
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    dots[t] = __shfl_sync(kAllLanes, sum, t * kShareLanes);
  }
}

// What the list warp says of the up row at `place`, in the list ring: false
// where there is none and no more to come.
template <int kTokens>
__device__ bool AwaitUpRow(const RingPlace& place, float (&scores)[kTokens]) {
  auto& head = Block<kTokens>::head();
  Wait(&head.list_full[place.slot], place.parity);
  if (head.list_ends[place.slot]) return false;
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    scores[t] = head.list_scores[place.slot][t];
  }
  return true;
}

// The scores and up products of the next neuron, at `place`, and of the one
// after it, to the bits of DotOrder::kInOrder: the products of two rows are
// added up side by side. One token takes one alone where the other was not
// ordered with it, rather than wait. Returns how many there were. The slots of
// their up rows are free then; the caller moves on.
template <typename T, int kTokens, int kPacks>
__device__ int DotNeuronsInOrder(const FusedBulkParams& p, RingPlace place,
                                 int turn, float (&scores)[2][kTokens],
                                 float (&dots)[2][kTokens]) {
  using B = Block<kTokens>;
  constexpr int kRowLanes = kTokens * kShareLanes;
  static_assert(kNeuronsAtOnce<kTokens, kPacks> == 2 && 2 * kRowLanes <= kWarp);
  auto* products = B::template Products<kPacks>(p) + 2 * turn;
  int count = 0;
  bool more = true;
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    if (n == count && more && AwaitUpRow(place, scores[n])) {
      if (kTokens == 1) more = B::head().list_more[place.slot];
      MultiplyUpRow<T>(B::Operands(p, B::ListSlot(p, place.slot)), products[n]);
      ListBarriers::Arrive(place.slot);
      place.Advance(p.list_slots);
      place.Advance(p.list_slots);
      ++count;
    }
  }
  if (count == 0) return 0;
  SyncSumWarps();
  const int lane = threadIdx.x % kWarp;
  const int n = lane / kRowLanes;
  const float sum =
      AddUpProducts(products[n], lane % kRowLanes / kShareLanes, n < count);
#pragma unroll
  for (int i = 0; i < 2 * kTokens; ++i) {
    dots[i / kTokens][i % kTokens] =
        __shfl_sync(kAllLanes, sum, i * kShareLanes);
  }
  return count;
}

// Sums of h times down rows. A thread has kPack columns in every
// kPack * kSumThreads. One row after the other, as LaunchOrderedDown does.
template <typename T, int kTokens, int kPacks>
struct DownSums {
  float sums[kTokens][kPacks][kPack] = {};

  __device__ void Add(const std::byte* row, const float (&h)[kTokens],
                      int packs) {
    const int thread = threadIdx.x;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int at = thread + k * kSumThreads;
      if (at >= packs) break;
      float w[kPack];
      reinterpret_cast<const Pack<T>*>(row)[at].Unpack(w);
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        // Not even times NaN.
        if (kTokens > 1 && h[t] == 0) continue;
#pragma unroll
        for (int c = 0; c < kPack; ++c) {
          sums[t][k][c] = fmaf(h[t], w[c], sums[t][k][c]);
        }
      }
    }
  }
  // To the block's part of a token. Lanes exchange halves of packs, so that
  // what a warp stores at once lies side by side.
  __device__ void Store(float* part, int token, int packs) const {
    const int thread = threadIdx.x;
    const int lane = thread % kWarp;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const float(&s)[kPack] = sums[token][k];
      const int first = thread - lane + k * kSumThreads;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int from = (half * kWarp + lane) / 2;
        float quad[4];
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          const float low = __shfl_sync(kAllLanes, s[c], from);
          const float high = __shfl_sync(kAllLanes, s[c + 4], from);
          quad[c] = lane % 2 == 0 ? low : high;
        }
        if (first + from >= packs) continue;
        reinterpret_cast<float4*>(part)[2 * first + half * kWarp + lane] =
            make_float4(quad[0], quad[1], quad[2], quad[3]);
      }
    }
  }
};

// Takes neurons in the order of the list ring.
template <typename T, DotOrder kOrder, int kTokens, int kPacks>
__device__ void RunSumWarp(const FusedBulkParams& p) {
  auto& head = Block<kTokens>::head();
  const int packs = p.row_bytes / kPackBytes;
  DownSums<T, kTokens, kPacks> sums;
  RingPlace place;
  const auto row = [&] { return Block<kTokens>::ListSlot(p, place.slot); };
  const auto release = [&] {
    ListBarriers::Arrive(place.slot);
    place.Advance(p.list_slots);
  };
  // The down row at `place`, times the up products and the scores in h.
  const auto add_down_row = [&](float(&up)[kTokens], float(&h)[kTokens]) {
    bool any = false;
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      if (p.clamp_up && up[t] <= 0) up[t] = 0;
      if (h[t] != 0) h[t] *= up[t];  // True of NaN.
      any = any || h[t] != 0;
    }
    Wait(&head.list_full[place.slot], place.parity);
    if (any) sums.Add(row(), h, packs);
    release();
  };
  Wait(&head.hidden_full, 0);
  for (int turn = 0;; turn ^= 1) {
    if constexpr (kOrder == DotOrder::kInOrder &&
                  kNeuronsAtOnce<kTokens, kPacks> == 2) {
      float h[2][kTokens];
      float up[2][kTokens];
      const int count =
          DotNeuronsInOrder<T, kTokens, kPacks>(p, place, turn, h, up);
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        if (n < count) {
          place.Advance(p.list_slots);
          add_down_row(up[n], h[n]);
        }
      }
      if (count == 0) break;
    } else {
      float h[kTokens];
      float up[kTokens];
      if (!AwaitUpRow(place, h)) break;
      const DotOperands operands = Block<kTokens>::Operands(p, row());
      if constexpr (kOrder == DotOrder::kInOrder) {
        DotBySumWarpsInOrder<T, kTokens, kPacks>(p, operands, turn, up);
      } else {
        DotBySumWarps<T, kTokens, kPacks>(operands, turn, up);
      }
      release();
      add_down_row(up, h);
    }
  }
  AwaitPredecessor();
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    sums.Store(p.parts + (static_cast<size_t>(blockIdx.x) * kTokens + t) *
                             p.part_stride,
               t, packs);
  }
}

}  // namespace sparse_ffn::cuda

#endif  // __CUDA_ARCH__ >= 900

#endif  // SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_SUM_CUH_
