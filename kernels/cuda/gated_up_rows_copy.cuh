// The copy warp of gated_up_rows.cu: orders the block's rows of gate_proj, then
// of up_proj those that the sum warp lists.
#ifndef SPARSE_FFN_KERNELS_CUDA_GATED_UP_ROWS_COPY_CUH_
#define SPARSE_FFN_KERNELS_CUDA_GATED_UP_ROWS_COPY_CUH_

#include "kernels/cuda/gated_up_rows_block.cuh"

#if __CUDA_ARCH__ >= 900

namespace sparse_ffn::cuda {

// The ring of stages, as the copy warp fills it.
template <int kTokenTiles>
class StageOrders {
 public:
  __device__ explicit StageOrders(const RowsBlock<kTokenTiles>& block)
      : block_(block) {}

  // A tile of the rows row_of(i) of `matrix`, for i < count <= kTileRows. None:
  // no tile comes after the last one.
  template <typename F>
  __device__ void Order(const void* matrix, int count, F&& row_of) {
    const auto& p = block_.p;
    auto& head = block_.head;
    const int stage = place_.stage;
    if (!first_turn_) Wait(&head.empty[stage], place_.parity ^ 1);
    const int i = Lane();
    if (i == 0) head.ends[stage] = count == 0;
    if (i < count) {
      const auto* from =
          static_cast<const std::byte*>(matrix) +
          static_cast<size_t>(block_.Neuron(row_of(i))) * p.row_bytes;
      CopyBulk(block_.StageRow(stage, i), from, p.row_bytes, &head.full[stage]);
    } else if (i < kTileRows) {
      Arrive(&head.full[stage]);
    }
    __syncwarp();
    place_.Advance(p.stages);
    if (place_.stage == 0) first_turn_ = false;
  }

 private:
  const RowsBlock<kTokenTiles>& block_;
  StagePlace place_;
  bool first_turn_ = true;
};

template <int kTokenTiles>
__device__ void RunCopyWarp(const RowsBlock<kTokenTiles>& block) {
  auto& head = block.head;
  StageOrders<kTokenTiles> orders(block);
  for (int first = 0; first < block.rows; first += kTileRows) {
    orders.Order(block.p.gate_proj, min(kTileRows, block.rows - first),
                 [&](int i) { return first + i; });
  }
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
  orders.Order(nullptr, 0, [](int i) { return i; });
}

}  // namespace sparse_ffn::cuda

#endif  // __CUDA_ARCH__ >= 900

#endif  // SPARSE_FFN_KERNELS_CUDA_GATED_UP_ROWS_COPY_CUH_
