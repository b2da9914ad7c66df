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
  int left;  // Rows to order.

  __device__ void Order(const FusedBulkParams& p, void* slot, uint64_t* full) {
    if (left == 0) return;
    CopyBulk(slot, row, p.row_bytes, full);
    row += step;
    --left;
  }
  // Orders the first two rows. One goes to a slot of the list ring, which has
  // no use for it yet.
  __device__ void Start(const FusedBulkParams& p, int warp, int rows) {
    auto& head = In::head();
    row = Row(p.gate_proj, p, warp);
    step = static_cast<size_t>(kGateWarps) * gridDim.x * p.row_bytes;
    left = (rows - warp + kGateWarps - 1) / kGateWarps;
    InitBarrier(&head.gate_full[warp], 1);
    InitBarrier(&head.first_full[warp], 1);
    PublishBarriers();
    if (warp < p.list_slots) {
      Order(p, In::ListSlot(p, warp), &head.first_full[warp]);
    }
    Order(p, In::GateSlot(p, warp), &head.gate_full[warp]);
  }
};

template <typename T, int kTokens>
__device__ void RunGateWarp(const FusedBulkParams& p,
                            GateOrders<kTokens>& orders, int warp, int rows) {
  using In = Block<kTokens>;
  auto& head = In::head();
  const int lane = threadIdx.x % kWarp;
  uint32_t parity = 0;
  int round = 0;
  Wait(&head.hidden_full, 0);
  for (int i = warp; i < rows; i += kGateWarps, ++round) {
    const bool in_list_slot = round == 0 && warp < p.list_slots;
    std::byte* slot =
        in_list_slot ? In::ListSlot(p, warp) : In::GateSlot(p, warp);
    if (in_list_slot) {
      Wait(&head.first_full[warp], 0);
    } else {
      Wait(&head.gate_full[warp], parity);
      parity ^= 1;
    }
    float scores[kTokens];
    DotRow<T>(In::Operands(p, slot), scores);
    __syncwarp();
    if (in_list_slot) Arrive(&head.list_empty[warp]);
    if (lane != 0) continue;
    if (!in_list_slot) orders.Order(p, slot, &head.gate_full[warp]);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) head.scores[t][i] = scores[t];
    Arrive(&head.round_done[round]);
  }
}

}  // namespace sparse_ffn::cuda

#endif  // __CUDA_ARCH__ >= 900

#endif  // SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_GATE_CUH_
