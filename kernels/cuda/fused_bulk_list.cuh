// The list warp of fused_bulk.cu: orders the up and down rows of the neurons
// that are active for some token.
#ifndef SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_LIST_CUH_
#define SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_LIST_CUH_

#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/fused_bulk_block.cuh"
#include "kernels/cuda/fused_bulk_fetch.cuh"

#if __CUDA_ARCH__ >= 900

namespace sparse_ffn::cuda {

// By the whole list warp.
template <int kTokens>
__device__ void InitHead(const FusedBulkParams& p, int rows) {
  auto& head = Block<kTokens>::head();
  const int lane = threadIdx.x % kWarp;
  if (lane == 0) {
    head.launch = EnterLaunch(p);
    InitBarrier(&head.hidden_full, kSumThreads);
    InitBarrier(&head.told, 1);
    head.left = false;
    head.zero_pack = make_uint4(0, 0, 0, 0);
  }
  for (int r = lane; r * kRoundRows < rows; r += kWarp) {
    InitBarrier(&head.round_done[r], min(kRoundRows, rows - r * kRoundRows));
  }
  if (lane < p.list_slots) {
    InitBarrier(&head.list_full[lane], 2);
    InitBarrier(&head.list_empty[lane], kWarp);
  }
  PublishBarriers();
}

// By the whole list warp.
template <int kTokens>
struct ListOrders {
  FillPlace place = {};

  __device__ void AwaitFree() const {
    if (!place.first_turn) {
      ListBarriers::Await(place.slot);
    } else {
      Wait(&Block<kTokens>::head().list_empty[place.slot], 0);
    }
  }
  // `scores`: of the neuron, 0 for tokens for which it is inactive. `more`:
  // another one is ordered right after it.
  __device__ void Order(const FusedBulkParams& p, const std::byte* row,
                        const float (&scores)[kTokens], bool more) {
    AwaitFree();
    if (threadIdx.x % kWarp == 0) Copy(p, row, scores, more);
    place.Advance(p.list_slots);
  }
  __device__ void Copy(const FusedBulkParams& p, const std::byte* row,
                       const float (&scores)[kTokens], bool more) const {
    auto& head = Block<kTokens>::head();
    CopyBulk(Block<kTokens>::ListSlot(p, place.slot), row, p.row_bytes,
             &head.list_full[place.slot]);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      head.list_scores[place.slot][t] = scores[t];
    }
    head.list_more[place.slot] = more;
    head.list_ends[place.slot] = false;
    Arrive(&head.list_full[place.slot]);
  }
  __device__ void End(const FusedBulkParams& p) {
    auto& head = Block<kTokens>::head();
    AwaitFree();
    if (threadIdx.x % kWarp == 0) {
      head.list_ends[place.slot] = true;
      Arrive(&head.list_full[place.slot]);
      Arrive(&head.list_full[place.slot]);
    }
    place.AwaitOthers(p.list_slots, ListBarriers::Await);
  }
};

template <int kTokens, bool kAhead>
__device__ void RunListWarp(const FusedBulkParams& p, int rows) {
  auto& head = Block<kTokens>::head();
  const int lane = threadIdx.x % kWarp;
  if (lane == 0) AllowSuccessor();
  bool left = false;
  if constexpr (kAhead) {
    Wait(&head.hidden_full, 0);
    left = head.left;
    if (left) rows = 0;
  }
  ListOrders<kTokens> orders;
  int active[1 + kTokens] = {};  // As in FusedTokensParams.
  int round = 0;
  for (int first = 0; first < rows; first += kRoundRows, ++round) {
    Wait(&head.round_done[round], 0);
    const bool exists = lane < min(kRoundRows, rows - first);
    unsigned masks[kTokens];
    unsigned mask = 0;
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      const float score = exists ? head.scores[t][first + lane] : 0;
      masks[t] = __ballot_sync(
          kAllLanes, exists && t < p.tokens && IsActive(score, p.threshold));
      active[1 + t] += __popc(masks[t]);
      mask |= masks[t];
    }
    active[0] += __popc(mask);
    for (; mask != 0; mask &= mask - 1) {
      const int i = __ffs(static_cast<int>(mask)) - 1;
      float scores[kTokens];
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        scores[t] = (masks[t] >> i & 1) != 0 ? head.scores[t][first + i] : 0;
      }
      const bool more = (mask & (mask - 1)) != 0;
      orders.Order(p, Row(p.up_proj, p, first + i), scores, more);
      orders.Order(p, Row(p.down_proj, p, first + i), scores, more);
    }
  }
  orders.End(p);
  AwaitPredecessor();
  if (lane != 0) return;
#pragma unroll
  for (int i = 0; i <= kTokens; ++i) {
    p.active[blockIdx.x * (1 + kTokens) + i] = active[i];
  }
  if (left && blockIdx.x == 0) p.state->left = p.ahead.number;
}

}  // namespace sparse_ffn::cuda

#endif  // __CUDA_ARCH__ >= 900

#endif  // SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_LIST_CUH_
