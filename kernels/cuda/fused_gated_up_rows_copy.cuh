// The copy warp of fused_gated_up_rows.cu: orders the rows of gate_proj that
// its block or cluster has, then of up_proj those that the sum warp lists.
#ifndef SPARSE_FFN_KERNELS_CUDA_FUSED_GATED_UP_ROWS_COPY_CUH_
#define SPARSE_FFN_KERNELS_CUDA_FUSED_GATED_UP_ROWS_COPY_CUH_

#include "kernels/cuda/fused_gated_up_rows_block.cuh"

#if __CUDA_ARCH__ >= 900

namespace sparse_ffn::cuda {

// The ring of stages, as the copy warp fills it.
template <typename S>
class StageOrders {
 public:
  __device__ explicit StageOrders(const RowsBlock<S>& block) : block_(block) {}

  // A tile of the rows row_of(i) of `matrix`, for i < count <= kTileRows.
  template <typename F>
  __device__ void Order(const void* matrix, int count, F&& row_of) {
    const auto& p = block_.p;
    uint64_t* full = Begin(/*ends=*/false);
    const int i = Lane();
    if (i < count) {
      const auto* from =
          static_cast<const std::byte*>(matrix) +
          static_cast<size_t>(block_.Neuron(row_of(i))) * p.row_bytes;
      CopyBulk(block_.StageRow(place_.slot, i), from, p.row_bytes, full);
    } else if (i < kTileRows) {
      Arrive(full);
    }
    place_.Advance(p.stages);
  }
  // Whether there is a stage that has not been used.
  __device__ bool HasUnused() const { return place_.first_turn; }
  // Waits for all tiles ordered so far; no stage has been used twice.
  __device__ void AwaitCopies() const {
    const int used = place_.Used(block_.p.stages);
    for (int slot = 0; slot < used; ++slot) Wait(&block_.head.full[slot], 0);
  }
  // No tile comes after the last one.
  __device__ void End() {
    uint64_t* full = Begin(/*ends=*/true);
    if (Lane() < kTileRows) Arrive(full);
    place_.AwaitOthers(block_.p.stages, StageBarriers<S>::Await);
  }

 private:
  // The barrier of the next stage, when that is free.
  __device__ uint64_t* Begin(bool ends) {
    auto& head = block_.head;
    if (!place_.first_turn) StageBarriers<S>::Await(place_.slot);
    if (Lane() == 0) head.ends[place_.slot] = ends;
    __syncwarp();
    return &head.full[place_.slot];
  }

  const RowsBlock<S>& block_;
  FillPlace place_;
};

template <typename S>
__device__ void RunCopyWarp(const RowsBlock<S>& block) {
  auto& head = block.head;
  StageOrders<S> orders(block);
  int gate_row = 0;
  const auto order_gate = [&] {
    orders.Order(block.p.gate_proj, min(kTileRows, block.rows - gate_row),
                 [&](int i) { return gate_row + i; });
    gate_row += kTileRows;
  };
  // All that can be done before the batch has come.
  while (gate_row < block.rows && orders.HasUnused()) order_gate();
  if (block.p.ahead_number != 0) {
    AwaitPredecessor();
    if (block.WasLeft()) {
      orders.AwaitCopies();
      return;
    }
  }
  while (gate_row < block.rows) order_gate();
  int listed = 0;
  int scored = 0;  // Tiles that are known to be.
  for (int first = 0;; first += kTileRows) {
    for (; listed < first + kTileRows && scored < block.gate_tiles; ++scored) {
      Wait(&head.scored[scored], 0);
      listed = head.listed[scored];
    }
    const int count = min(kTileRows, listed - first);
    if (count <= 0) break;
    orders.Order(block.p.up_proj, count,
                 [&](int i) { return head.active[first + i]; });
  }
  orders.End();
}

}  // namespace sparse_ffn::cuda

#endif  // __CUDA_ARCH__ >= 900

#endif  // SPARSE_FFN_KERNELS_CUDA_FUSED_GATED_UP_ROWS_COPY_CUH_
