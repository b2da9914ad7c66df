// The gate warps of fused_bulk.cu: scores of a block's neurons.
#ifndef SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_GATE_CUH_
#define SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_GATE_CUH_

#include "kernels/cuda/fused_bulk_block.cuh"

#if __CUDA_ARCH__ >= 900

namespace sparse_ffn::cuda {

// A block's rows come in turns: the first gate_slots rows in the gate slots,
// the next list_slots in those of the list ring, which has no use for them yet,
// the rest in the gate slots again and again. Warp w takes the rows of slots w,
// w + gate_warps, ... in every turn.

// What lane 0 of a gate warp orders before the hidden states are there.
template <int kTokens, bool kAhead>
class FirstRows {
  using In = Block<kTokens>;

 public:
  __device__ void Start(const FusedBulkParams& p, int warp, int rows) {
    end_ = min(rows, p.gate_slots + p.list_slots);
    next_ = warp;
    auto& head = In::head();
    for (int slot = warp; slot < p.gate_slots; slot += p.gate_warps) {
      InitBarrier(&head.gate_full[slot], 1);
    }
    for (int slot = warp; slot < p.list_slots; slot += p.gate_warps) {
      InitBarrier(&head.early_full[slot], 1);
    }
    PublishBarriers();
    // Barriers of other warps' slots may not be there yet.
    while (next_ < min(min(p.early_rows, p.gate_slots), end_)) {
      Order(p, warp);
    }
  }
  // In turn with the other warps and few at a time until the hidden states have
  // come: what they still wait for would have to queue behind more.
  __device__ void Finish(const FusedBulkParams& p, int warp) {
    auto& head = In::head();
    while (next_ < end_) {
      const bool come = HasEnded(&head.hidden_full, 0);
      if (kAhead && come && head.left) return;
      if (come || next_ < p.early_rows ||
          HasEnded(Full(p, next_ - p.early_rows), 0)) {
        Order(p, warp);
      }
    }
  }
  // Brings rows that have no slot yet into the L2, where there is time for it:
  // every second one of each slot and of each turn, so that the memory and the
  // L2 are read together.
  __device__ void Prefetch(const FusedBulkParams& p, int warp, int rows) const {
    constexpr int kBytes = 200 << 10;
    if (HasEnded(&In::head().hidden_full, 0)) return;
    const int end = min(rows - end_, 2 * (kBytes / p.row_bytes));
    for (int i = warp; i < end; i += p.gate_warps) {
      if ((i + i / p.gate_slots) % 2 == 0) continue;
      PrefetchBulk(Row(p.gate_proj, p, end_ + i), p.row_bytes);
    }
  }
  // All rows of this warp below this have been ordered, and no others.
  __device__ int end() const { return min(next_, end_); }

 private:
  __device__ static uint64_t* Full(const FusedBulkParams& p, int i) {
    auto& head = In::head();
    return i < p.gate_slots ? &head.gate_full[i]
                            : &head.early_full[i - p.gate_slots];
  }
  __device__ void Order(const FusedBulkParams& p, int warp) {
    std::byte* slot = next_ < p.gate_slots
                          ? In::GateSlot(p, next_)
                          : In::ListSlot(p, next_ - p.gate_slots);
    CopyBulk(slot, Row(p.gate_proj, p, next_), p.row_bytes, Full(p, next_));
    const bool in_gate_slot = next_ < p.gate_slots;
    next_ += p.gate_warps;
    if (in_gate_slot && next_ >= p.gate_slots) next_ = p.gate_slots + warp;
  }

  int next_;  // Row, of this warp.
  int end_;
};

// Leaves the scores of row i, which `full` announces in `slot`, and then has
// row `next` copied there, if there is one.
template <typename T, DotOrder kOrder, int kTokens>
__device__ void ScoreRow(const FusedBulkParams& p, int i, std::byte* slot,
                         uint64_t* full, uint32_t parity, int next, int rows) {
  using In = Block<kTokens>;
  auto& head = In::head();
  Wait(full, parity);
  float scores[kTokens];
  DotRow<T, kOrder>(In::Operands(p, slot), scores);
  __syncwarp();
  if (threadIdx.x % kWarp != 0) return;
  if (next < rows) {
    CopyBulk(slot, Row(p.gate_proj, p, next), p.row_bytes, full);
  }
#pragma unroll
  for (int t = 0; t < kTokens; ++t) head.scores[t][i] = scores[t];
  Arrive(&head.round_done[i / kRoundRows]);
}

template <typename T, DotOrder kOrder, int kTokens, bool kAhead>
__device__ void RunGateWarp(const FusedBulkParams& p,
                            FirstRows<kTokens, kAhead>& first_rows, int warp,
                            int rows) {
  using In = Block<kTokens>;
  auto& head = In::head();
  if (threadIdx.x % kWarp == 0) {
    first_rows.Finish(p, warp);
    if constexpr (kAhead) first_rows.Prefetch(p, warp, rows);
  }
  __syncwarp();
  Wait(&head.hidden_full, 0);
  if (kAhead && head.left) {
    // Only those whose copies are on their way.
    rows = __shfl_sync(kAllLanes, first_rows.end(), 0);
  }
  uint32_t parity = 0;
  int first = 0;  // Row of the turn.
  for (int turn = 0; turn < 2 || first < rows; ++turn) {
    const bool in_list_slots = turn == 1;
    const int slots = in_list_slots ? p.list_slots : p.gate_slots;
    // From a slot's row to the one that comes there next.
    const int step = turn == 0 ? p.gate_slots + p.list_slots : p.gate_slots;
    for (int slot = warp; slot < slots; slot += p.gate_warps) {
      const int i = first + slot;
      if (i < rows) {
        ScoreRow<T, kOrder, kTokens>(
            p, i, in_list_slots ? In::ListSlot(p, slot) : In::GateSlot(p, slot),
            in_list_slots ? &head.early_full[slot] : &head.gate_full[slot],
            in_list_slots ? 0 : parity, in_list_slots ? rows : i + step, rows);
      }
      if (in_list_slots) Arrive(&head.list_empty[slot]);
    }
    if (!in_list_slots) parity ^= 1;
    first += slots;
  }
}

}  // namespace sparse_ffn::cuda

#endif  // __CUDA_ARCH__ >= 900

#endif  // SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_GATE_CUH_
