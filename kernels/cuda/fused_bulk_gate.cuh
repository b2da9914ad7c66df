// The gate warps of fused_bulk.cu: scores of a block's neurons.
#ifndef SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_GATE_CUH_
#define SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_GATE_CUH_

#include "kernels/cuda/fused_bulk_block.cuh"

#if __CUDA_ARCH__ >= 900

namespace sparse_ffn::cuda {

// What lane 0 of a gate warp knows of its rows: warp + k * kGateWarps.
template <int kTokens>
struct GateOrders {
  using In = Block<kTokens>;
  const std::byte* row;  // To order next.
  size_t step;
  int left;       // Rows to order.
  int ahead = 0;  // Rows ordered ahead; after RunAhead at least 1.

  __device__ void Order(const FusedBulkParams& p, void* slot, uint64_t* full) {
    if (left == 0) return;
    CopyBulk(slot, row, p.row_bytes, full);
    row += step;
    --left;
  }
  __device__ void Start(const FusedBulkParams& p, int warp, int rows) {
    auto& head = In::head();
    row = Row(p.gate_proj, p, warp);
    step = static_cast<size_t>(kGateWarps) * gridDim.x * p.row_bytes;
    left = (rows - warp + kGateWarps - 1) / kGateWarps;
    InitBarrier(&head.gate_full[warp], 1);
    for (int slot = warp; slot < p.ahead_slots; slot += kGateWarps) {
      InitBarrier(&head.ahead_full[slot], 1);
    }
    PublishBarriers();
    if (warp < p.ahead_rows) OrderAhead(p, warp);
  }
  // Until the hidden states have come, fills the block's slots with its first
  // rows, in turn with the other warps and few at a time: what other blocks
  // still have to store and to load for those hidden states would have to queue
  // behind them.
  __device__ void RunAhead(const FusedBulkParams& p, int warp) {
    while (!HasEnded(&In::head().hidden_full, 0)) {
      const int i = warp + ahead * kGateWarps;
      if (left > 0 && i < kGateWarps + p.ahead_slots &&
          HasEnded(FullAhead(i - p.ahead_rows), 0)) {
        OrderAhead(p, i);
      }
    }
    if (ahead == 0) OrderAhead(p, warp);
  }
  // Of the block's row i, ordered ahead.
  __device__ static uint64_t* FullAhead(int i) {
    auto& head = In::head();
    return i < kGateWarps ? &head.gate_full[i]
                          : &head.ahead_full[i - kGateWarps];
  }
  __device__ void OrderAhead(const FusedBulkParams& p, int i) {
    Order(
        p,
        i < kGateWarps ? In::GateSlot(p, i) : In::AheadSlot(p, i - kGateWarps),
        FullAhead(i));
    ++ahead;
  }
};

template <typename T, int kTokens>
__device__ void RunGateWarp(const FusedBulkParams& p,
                            GateOrders<kTokens>& orders, int warp, int rows) {
  using In = Block<kTokens>;
  auto& head = In::head();
  const int lane = threadIdx.x % kWarp;
  if (lane == 0) orders.RunAhead(p, warp);
  const int ahead = __shfl_sync(kAllLanes, orders.ahead, 0);
  // Ahead slots below this hold a row of this warp.
  const int ahead_end = warp + (ahead - 1) * kGateWarps;
  for (int slot = ahead_end; slot < p.list_slots; slot += kGateWarps) {
    Arrive(&head.list_empty[slot]);
  }
  Wait(&head.hidden_full, 0);
  uint32_t parity = 0;
  int round = 0;
  for (int i = warp; i < rows; i += kGateWarps, ++round) {
    const int slot = i - kGateWarps;
    const bool is_ahead = slot >= 0 && slot < ahead_end;
    std::byte* row = is_ahead ? In::AheadSlot(p, slot) : In::GateSlot(p, warp);
    if (is_ahead) {
      Wait(&head.ahead_full[slot], 0);
    } else {
      Wait(&head.gate_full[warp], parity);
      parity ^= 1;
    }
    float scores[kTokens];
    DotRow<T>(In::Operands(p, row), scores);
    __syncwarp();
    if (is_ahead && slot < p.list_slots) Arrive(&head.list_empty[slot]);
    if (lane != 0) continue;
    if (!is_ahead) orders.Order(p, row, &head.gate_full[warp]);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) head.scores[t][i] = scores[t];
    Arrive(&head.round_done[round]);
  }
}

}  // namespace sparse_ffn::cuda

#endif  // __CUDA_ARCH__ >= 900

#endif  // SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_GATE_CUH_
