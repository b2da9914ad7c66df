// The sum warp of fused_gated_up_rows.cu: adds up what the dot warps leave,
// lists the active rows and stores h. In a cluster the two sum warps first tell
// each other which rows those are. Each reads the other's word of a tile before
// it sends that of the next, and a place is read before the rows of the second
// tile after it are joined: so none is more than two ahead.
#ifndef SPARSE_FFN_KERNELS_CUDA_FUSED_GATED_UP_ROWS_SUM_CUH_
#define SPARSE_FFN_KERNELS_CUDA_FUSED_GATED_UP_ROWS_SUM_CUH_

#include "kernels/cuda/fused_gated_up_rows_block.cuh"
#include "kernels/cuda/split_gated.cuh"

#if __CUDA_ARCH__ >= 900

namespace sparse_ffn::cuda {

// Rows of a tile, as bits.
class TileRows {
 public:
  // Those for which `is` is true in some lane.
  __device__ static TileRows Where(bool is) {
    const unsigned lanes = __ballot_sync(kAllLanes, is);
    TileRows rows;
#pragma unroll
    for (int row = 0; row < kTileRows; ++row) {
      if ((lanes >> 4 * row & 0xf) != 0) rows.bits_ |= 1u << row;
    }
    return rows;
  }
  TileRows() = default;
  __device__ explicit TileRows(int bits) : bits_(static_cast<unsigned>(bits)) {}
  __device__ int bits() const { return static_cast<int>(bits_); }
  __device__ int count() const { return __popc(bits_); }
  // Whether this lane's row is one, and how many come before it.
  __device__ bool HasMine() const { return (bits_ >> Group() & 1) != 0; }
  __device__ int BeforeMine() const {
    return __popc(bits_ & ((1u << Group()) - 1));
  }

 private:
  unsigned bits_ = 0;
};

template <typename T, typename S>
class SumWarp {
  using Sums = RowSums<S>;
  static constexpr int kSums = 2 * S::kTokenTiles;
  static constexpr int kTokens = S::kTokens;

 public:
  __device__ explicit SumWarp(const RowsBlock<S>& block) : block_(block) {
#pragma unroll
    for (int i = 0; i < S::kBlocks; ++i) stored_[i] = First(i);
  }

  __device__ void Run() {
    for (int tile = 0; tile < block_.gate_tiles; ++tile) {
      Sums scores;
      Take(tile, scores);
      Select(tile, scores);
    }
    // A tile's place is known by the time that the next one has come.
    GatedTile tile;
    for (int first = 0; first < count_; first += kTileRows) {
      Sums up;
      Take(block_.gate_tiles + first / kTileRows, up);
      SendPlace(tile);
      const GatedTile before = tile;
      tile = Gate(first, up);
      Store(before);
    }
    SendPlace(tile);
    Store(tile);
  }
  // Tells what was found.
  __device__ void End() const {
    Count();
    if (StoresInOrder() && IsLeader() && Lane() == 0) {
#pragma unroll
      for (int i = 0; i < S::kBlocks; ++i) {
        block_.p.block_counts[block_.DealtBlock(i)] = stored_[i] - First(i);
      }
    }
  }

 private:
  // With block_counts h goes to places dealt out beforehand.
  __device__ bool StoresInOrder() const {
    return block_.p.block_counts != nullptr;
  }
  // The first one of those that are dealt to block i of the cluster.
  __device__ int First(int i) const {
    return DealtBefore(block_.p.intermediate_size, static_cast<int>(gridDim.x),
                       block_.DealtBlock(i));
  }
  // Of a cluster, the block that does what is done once.
  __device__ bool IsLeader() const { return block_.rank == 0; }

  // h of a tile of active rows.
  struct GatedTile {
    Sums h = {};
    int first = 0;  // Of the active rows.
    TileRows rows;  // Where h is not 0 for all tokens,
    int at = 0;     // and the place of the first one, in lane 0 of the leader;
                    // in order that of this lane's.
  };

  // The rows of a tile that some block of the cluster has found.
  __device__ TileRows Join(TileRows found, RowsWord word, int tile) const {
    if constexpr (S::kBlocks == 1) {
      return found;
    } else {
      Mailbox& mailbox = block_.head.mailboxes[word];
      if (Lane() == 0) mailbox.SendTo(1 - block_.rank, tile, found.bits());
      return TileRows(found.bits() | mailbox.Read(tile));
    }
  }

  // What all dot warps found for a tile.
  __device__ void Take(int tile, Sums& sums) const {
    auto& head = block_.head;
    const int turn = tile % kTurns;
    DottedBarriers<S>::Await(turn);
#pragma unroll
    for (int t = 0; t < S::kTokenTiles; ++t) {
      float2 shares[kDotShares] = {};
#pragma unroll
      for (int s = 0; s < S::kShares; ++s) {
        const float2 share = head.sums[turn][t][s][Lane()];
        shares[s % kDotShares].x += share.x;
        shares[s % kDotShares].y += share.y;
      }
      sums[2 * t] = AddShares([&](int s) { return shares[s].x; });
      sums[2 * t + 1] = AddShares([&](int s) { return shares[s].y; });
    }
    Arrive(&head.summed[turn]);
  }

  // Lists the active rows of a tile of gate_proj, and keeps their scores.
  __device__ void Select(int tile, const Sums& scores) {
    auto& head = block_.head;
    const int row = tile * kTileRows + Group();
    Sums active;
    bool any = false;
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
      const bool is_active = row < block_.rows &&
                             TokenOf(i) < block_.tokens_left &&
                             IsActive(scores[i], block_.p.threshold);
      active[i] = is_active ? scores[i] : 0;
      token_counts_[i] += is_active ? 1 : 0;
      any = any || is_active;
    }
    const TileRows rows = Join(TileRows::Where(any), kActiveRows, tile);
    if (rows.HasMine()) {
      const int place = count_ + rows.BeforeMine();
#pragma unroll
      for (int i = 0; i < kSums; ++i) {
        block_.scores[place][TokenOf(i)] = active[i];
      }
      if (Pair() == 0) head.active[place] = row;
    }
    count_ += rows.count();
    if (Lane() == 0) head.listed[tile] = count_;
    Arrive(&head.scored[tile]);
  }

  // Of the active rows from `first` on. Asks for their place.
  __device__ GatedTile Gate(int first, const Sums& up) {
    GatedTile tile;
    const int place = first + Group();
    bool matters = false;
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
      const float score = place < count_ ? block_.scores[place][TokenOf(i)] : 0;
      const float factor = block_.p.clamp_up && up[i] <= 0 ? 0 : up[i];
      tile.h[i] = score == 0 ? 0 : score * factor;
      matters = matters || tile.h[i] != 0;  // True of NaN.
    }
    tile.first = first;
    tile.rows = Join(TileRows::Where(matters), kGatedRows, first / kTileRows);
    if (StoresInOrder()) {
      tile.at = PlaceInOrder(tile);
    } else if (IsLeader() && Lane() == 0 && tile.rows.count() != 0) {
      tile.at = atomicAdd(block_.p.gated_count, tile.rows.count());
    }
    return tile;
  }

  // Of this lane's row, among those that are dealt to the same block.
  __device__ int PlaceInOrder(const GatedTile& tile) {
    if constexpr (S::kBlocks == 1) {
      const int first = stored_[0];
      stored_[0] += tile.rows.count();
      return first + tile.rows.BeforeMine();
    }
    const bool is_mine = tile.rows.HasMine();
    const int row = is_mine ? block_.head.active[tile.first + Group()] : 0;
    int place = 0;
#pragma unroll
    for (int i = 0; i < S::kBlocks; ++i) {
      const bool is_here = is_mine && row % S::kBlocks == i;
      const TileRows rows = TileRows::Where(is_here);
      if (is_here) place = stored_[i] + rows.BeforeMine();
      stored_[i] += rows.count();
    }
    return place;
  }
  // Out of order the leader knows it by the time that the next tile has come.
  __device__ void SendPlace(const GatedTile& tile) {
    if constexpr (S::kBlocks > 1) {
      if (StoresInOrder() || tile.rows.count() == 0 || !IsLeader()) return;
      const int i = places_passed_++;
      if (Lane() != 0) return;
      block_.head.mailboxes[kPlace].SendTo(/*block=*/1, i, tile.at);
    }
  }
  // The place of this lane's row. Out of order the leader's word is waited for.
  __device__ int Place(const GatedTile& tile) {
    if (StoresInOrder()) return tile.at;
    int first = __shfl_sync(kAllLanes, tile.at, 0);
    if constexpr (S::kBlocks > 1) {
      if (!IsLeader()) {
        first = block_.head.mailboxes[kPlace].Read(places_passed_++);
      }
    }
    return first + tile.rows.BeforeMine();
  }

  __device__ void Store(const GatedTile& tile) {
    const auto& p = block_.p;
    if (tile.rows.count() == 0) return;
    const int place = Place(tile);
    if (!tile.rows.HasMine()) return;
    if (IsLeader() && Pair() == 0) {
      p.gated_list[place] =
          block_.Neuron(block_.head.active[tile.first + Group()]);
    }
    if (StoresInOrder()) {
#pragma unroll
      for (int i = 0; i < kSums; ++i) {
        if (TokenOf(i) >= block_.tokens_left) continue;
        const int token = block_.first_token + TokenOf(i);
        p.gated[static_cast<size_t>(token) * p.intermediate_size + place] =
            tile.h[i];
      }
      return;
    }
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
      StoreGated<T>(p.gated_high, p.gated_low,
                    static_cast<size_t>(place) * (S::kBlocks * kTokens) +
                        block_.first_token + TokenOf(i),
                    tile.h[i]);
    }
  }

  // Adds the active rows to the counters.
  __device__ void Count() const {
    if (count_ == 0) return;
    if (IsLeader() && Lane() == 0) atomicAdd(block_.p.counters, count_);
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
      int sum = token_counts_[i];
#pragma unroll
      for (int lanes = 4; lanes < kWarp; lanes *= 2) {
        sum += __shfl_xor_sync(kAllLanes, sum, lanes);
      }
      if (Group() == 0 && sum != 0) {
        atomicAdd(&block_.p.counters[1 + block_.first_token + TokenOf(i)], sum);
      }
    }
  }

  const RowsBlock<S>& block_;
  int count_ = 0;           // Of active rows.
  int stored_[S::kBlocks];  // Where StoresInOrder: the next places.
  int places_passed_ = 0;   // Else, from the leader to the other block.
  int token_counts_[kSums] = {};
};

}  // namespace sparse_ffn::cuda

#endif  // __CUDA_ARCH__ >= 900

#endif  // SPARSE_FFN_KERNELS_CUDA_FUSED_GATED_UP_ROWS_SUM_CUH_
