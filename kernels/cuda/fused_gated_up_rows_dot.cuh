// The dot warps of fused_gated_up_rows.cu: each multiplies its share of a tile
// of rows with that of eight tokens, which it keeps in registers.
#ifndef SPARSE_FFN_KERNELS_CUDA_FUSED_GATED_UP_ROWS_DOT_CUH_
#define SPARSE_FFN_KERNELS_CUDA_FUSED_GATED_UP_ROWS_DOT_CUH_

#include <algorithm>

#include "kernels/cuda/fused_gated_up_rows_block.cuh"
#include "kernels/cuda/load_if.cuh"

#if __CUDA_ARCH__ >= 900

namespace sparse_ffn::cuda {

// kChunks: most that a share has of a row.
template <typename T, typename S, int kChunks>
class DotWarp {
 public:
  __device__ DotWarp(const RowsBlock<S>& block, int warp)
      : block_(block),
        share_(warp % S::kShares),
        token_tile_(warp / S::kShares) {}

  // When they are there.
  __device__ void LoadHidden() {
    const auto& p = block_.p;
    const int token = token_tile_ * 8 + Group();
    const int bytes = token < block_.tokens_left ? p.row_bytes : 0;
    const auto* row =
        static_cast<const std::byte*>(p.hidden_states) +
        static_cast<size_t>(block_.first_token + token) * p.row_bytes +
        Offset(0);
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      hidden_[c] =
          LoadIf<LoadFrom::kL2>(Offset(c) < bytes, row + c * S::kSweepBytes);
    }
  }

  __device__ void Run() const {
    auto& head = block_.head;
    RingPlace place;
    for (int tile = 0;; ++tile) {
      Wait(&head.full[place.slot], place.parity);
      if (head.ends[place.slot]) return;
      const float2 sums = Multiply(place.slot);
      __syncwarp();
      StageBarriers<S>::Arrive(place.slot);
      place.Advance(block_.p.stages);
      const int turn = tile % kTurns;
      Wait(&head.summed[turn], (tile / kTurns + 1) % 2);
      head.sums[turn][token_tile_][share_][Lane()] = sums;
      __syncwarp();
      DottedBarriers<S>::Arrive(turn);
    }
  }

 private:
  // Chunks at once: each takes some twelve registers.
  static constexpr int kAtOnce =
      std::clamp((S::kRegisters - 4 * kChunks - 16) / 12, 2, 6);

  // Where this lane's pack of chunk `c` of the share begins in a row.
  __device__ int Offset(int c) const {
    return c * S::kSweepBytes + share_ * kDotChunkBytes + Pair() * kPackBytes;
  }

  // This lane's packs of a row of a stage.
  struct Weights {
    const std::byte* row;  // From the first one on,
    int bytes;             // to its end.
    const std::byte* zeros;

    // That of chunk `c`.
    __device__ uint4 operator[](int c) const {
      const int at = c * S::kSweepBytes;
      return *reinterpret_cast<const uint4*>(at < bytes ? row + at : zeros);
    }
  };

  // The products of the share, of row `group` with tokens 2 pair and the next.
  __device__ float2 Multiply(int stage) const {
    const Weights weights = {
        block_.StageRow(stage, Group()) + Offset(0),
        block_.p.row_bytes - Offset(0),
        reinterpret_cast<const std::byte*>(&block_.head.zero_pack)};
    if constexpr (S::kInOrder) {
      return MultiplyInOrder(weights);
    } else {
      return MultiplyFast(weights);
    }
  }
  // A few chunks at a time, with a branch between: loads and products of more
  // would take registers that hidden states need.
  __device__ float2 MultiplyInOrder(const Weights& weights) const {
    float2 sums = make_float2(0, 0);
#pragma unroll
    for (int first = 0; first < kChunks; first += kAtOnce) {
      // No lane has any of these.
      if (first * S::kSweepBytes >= block_.p.row_bytes) break;
#pragma unroll
      for (int c = first; c < first + kAtOnce && c < kChunks; ++c) {
        const float2 products = MultiplyChunk<T>(weights[c], hidden_[c]);
        sums.x += products.x;
        sums.y += products.y;
      }
    }
    return sums;
  }
  // The chunks are added up by the tensor cores.
  __device__ float2 MultiplyFast(const Weights& weights) const {
    float upper[4] = {};
    float lower[4] = {};
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      AddChunkProducts<T>(weights[c], hidden_[c], upper, lower);
    }
    return ChunkSums(upper, lower);
  }

  const RowsBlock<S>& block_;
  const int share_;
  const int token_tile_;
  uint4 hidden_[kChunks];  // Of token `group` of that tile.
};

}  // namespace sparse_ffn::cuda

#endif  // __CUDA_ARCH__ >= 900

#endif  // SPARSE_FFN_KERNELS_CUDA_FUSED_GATED_UP_ROWS_DOT_CUH_
