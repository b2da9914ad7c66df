// The dot warps of fused_gated_up_rows.cu: each multiplies its columns of a
// tile of rows with those of all tokens, which it keeps in registers.
#ifndef SPARSE_FFN_KERNELS_CUDA_FUSED_GATED_UP_ROWS_DOT_CUH_
#define SPARSE_FFN_KERNELS_CUDA_FUSED_GATED_UP_ROWS_DOT_CUH_

#include "kernels/cuda/fused_gated_up_rows_block.cuh"
#include "kernels/cuda/load_if.cuh"
#include "kernels/cuda/tensor_core.cuh"

#if __CUDA_ARCH__ >= 900

namespace sparse_ffn::cuda {

// kChunks: most that a warp has of a row.
template <typename T, int kTokenTiles, int kChunks>
class DotWarp {
 public:
  __device__ DotWarp(const RowsBlock<kTokenTiles>& block, int warp)
      : block_(block), warp_(warp) {}

  // When they are there.
  __device__ void LoadHidden() {
    const auto& p = block_.p;
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
      const int token = t * 8 + Group();
      const int bytes = token < p.tokens ? p.row_bytes : 0;
      const auto* row = static_cast<const std::byte*>(p.hidden_states) +
                        static_cast<size_t>(token) * p.row_bytes + Offset(0);
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        hidden_[c][t] =
            LoadIf<LoadFrom::kL2>(Offset(c) < bytes, row + c * kSweepBytes);
      }
    }
  }

  __device__ void Run() const {
    auto& head = block_.head;
    RingPlace place;
    for (int tile = 0;; ++tile) {
      Wait(&head.full[place.slot], place.parity);
      if (head.ends[place.slot]) return;
      RowSums<kTokenTiles> sums;
      Multiply(place.slot, sums);
      __syncwarp();
      FreeStage(place.slot);
      place.Advance(block_.p.stages);
      const int turn = tile % kTurns;
      Wait(&head.summed[turn], (tile / kTurns + 1) % 2);
#pragma unroll
      for (int i = 0; i < 2 * kTokenTiles; ++i) {
        head.sums[turn][warp_][Lane()][i] = sums[i];
      }
      __syncwarp();
      TellDotted(turn);
    }
  }

 private:
  // Where this lane's pack of chunk `c` begins in a row.
  __device__ int Offset(int c) const {
    return c * kSweepBytes + warp_ * kChunkBytes + Pair() * kPackBytes;
  }

  // A lane's pack of weights, as it comes, is a part of two rows of a factor:
  // its first and third words of row group, the others of row group + 8. Each
  // of the two belongs to hidden states of its own, so there are two products,
  // of which one half each counts.
  __device__ void Multiply(int stage, RowSums<kTokenTiles>& sums) const {
    const std::byte* row = block_.StageRow(stage, Group());
    const auto* zeros =
        reinterpret_cast<const std::byte*>(&block_.head.zero_pack);
    float upper[kTokenTiles][4] = {};
    float lower[kTokenTiles][4] = {};
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const uint4 w = *reinterpret_cast<const uint4*>(
          Offset(c) < block_.p.row_bytes ? row + Offset(c) : zeros);
      const uint32_t weights[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
      for (int t = 0; t < kTokenTiles; ++t) {
        const uint4& h = hidden_[c][t];
        MultiplyAdd(upper[t], weights, {h.x, h.z}, T());
        MultiplyAdd(lower[t], weights, {h.y, h.w}, T());
      }
    }
#pragma unroll
    for (int i = 0; i < 2 * kTokenTiles; ++i) {
      sums[i] = upper[i / 2][i % 2] + lower[i / 2][2 + i % 2];
    }
  }

  const RowsBlock<kTokenTiles>& block_;
  const int warp_;
  uint4 hidden_[kChunks][kTokenTiles];  // Of token `group` of each tile.
};

}  // namespace sparse_ffn::cuda

#endif  // __CUDA_ARCH__ >= 900

#endif  // SPARSE_FFN_KERNELS_CUDA_FUSED_GATED_UP_ROWS_DOT_CUH_
