// Steps 1 and 2 of up to 16 tokens in one kernel, for compute capability 9.0
// and newer. A block's neurons are dealt out beforehand, as in
// fused_gated_up.cu; here the hidden states stay in registers and whole rows of
// weights stream past them, so that memory is read in long pieces and the L2
// for nothing else. Three kinds of warps:
//   dot warps share the columns: each multiplies its own of eight rows at a
//   time with all tokens, on the tensor cores;
//   the sum warp adds up what they leave, lists the active rows and stores h;
//   the copy warp orders the block's rows of gate_proj, then of up_proj those
//   that the sum warp lists.
#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "kernels/cuda/bulk_copy.cuh"
#include "kernels/cuda/clear.cuh"
#include "kernels/cuda/dealt_neurons.cuh"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/split_gated.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace sparse_ffn::cuda {
namespace {

// With the other two as many as leave a thread 128 registers.
constexpr int kDotWarps = 14;
constexpr int kDotThreads = kDotWarps * kWarp;
constexpr int kCopyWarp = kDotWarps;
constexpr int kSumWarp = kCopyWarp + 1;
constexpr int kThreads = (kSumWarp + 1) * kWarp;

constexpr int kTileRows = 8;  // That are multiplied at a time.
constexpr int kMaxRows = 512;  // Of gate_proj, in a block.
constexpr int kMaxTiles = kMaxRows / kTileRows;
// Tiles on their way or at work.
constexpr int kMinStages = 2;
constexpr int kMaxStages = 8;
constexpr int kTurns = 2;  // Places for the sums of a tile.

// Columns that a dot warp takes at a time, for two tensor-core products: each
// of four lanes has a pack of them. The columns of a product may be in any
// order, as long as both factors have the same.
constexpr int kChunkPacks = 4;
constexpr int kChunkBytes = kChunkPacks * kPackBytes;
constexpr int kTurnBytes = kDotWarps * kChunkBytes;  // Of all dot warps.

struct BulkParams : FusedGatedUpParams {
  int stages;
  int row_bytes;    // In memory,
  int row_stride;   // in a stage.
  int most_rows;    // Of a block.
};

// Shared memory: this, the scores of active rows, the stages.
template <int kTokenTiles>
struct Head {
  uint4 zero_pack;
  uint64_t full[kMaxStages];
  uint64_t empty[kMaxStages];
  uint64_t dotted[kTurns];  // The tile's sums are there.
  uint64_t summed[kTurns];  // They have been taken.
  uint64_t scored[kMaxTiles];
  bool ends[kMaxStages];  // There is no tile.
  int listed[kMaxTiles];  // Active rows so far.
  int active[kMaxRows];   // The rows.
  alignas(16) float sums[kTurns][kDotWarps][kWarp][2 * kTokenTiles];
};

template <int kTokenTiles>
constexpr int kHeadBytes =
    static_cast<int>((sizeof(Head<kTokenTiles>) + 127) / 128 * 128);

// Padded, so that chunks of two rows side by side fall on different banks.
int RowStride(int hidden_size) {
  constexpr int kBanks = 2 * kChunkBytes;
  return (2 * hidden_size + kBanks - 1) / kBanks * kBanks + kChunkBytes;
}

template <int kTokenTiles>
int ScoreBytes(int rows) {
  return rows * 8 * kTokenTiles * static_cast<int>(sizeof(float));
}

template <int kTokenTiles>
int Stages(Device device, int hidden_size, int rows) {
  const int bytes =
      device.shared_bytes - kHeadBytes<kTokenTiles> - ScoreBytes<kTokenTiles>(rows);
  return std::min(bytes / (kTileRows * RowStride(hidden_size)), kMaxStages);
}

#if __CUDA_ARCH__ >= 900

template <typename T, int kTokenTiles, int kChunks>
class Block {
  static constexpr int kTokens = 8 * kTokenTiles;
  // Of a lane, of the product of a tile: row group, of tokens 2 pair and
  // 2 pair + 1 of each token tile.
  using Sums = float[2 * kTokenTiles];

 public:
  __device__ Block(const BulkParams& p, std::byte* shared)
      : p_(p),
        head_(*reinterpret_cast<Head<kTokenTiles>*>(shared)),
        scores_(reinterpret_cast<float(*)[kTokens]>(
            shared + kHeadBytes<kTokenTiles>)),
        stages_(shared + kHeadBytes<kTokenTiles> +
                p.most_rows * sizeof(*scores_)),
        rows_(DealtTo(p.intermediate_size, static_cast<int>(gridDim.x),
                      static_cast<int>(blockIdx.x))),
        gate_tiles_((rows_ + kTileRows - 1) / kTileRows) {}

  __device__ void Run() {
    InitBarriers();
    __syncthreads();
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    if (warp == kCopyWarp) {
      RunCopyWarp();
    } else if (warp == kSumWarp) {
      RunSumWarp();
    } else {
      RunDotWarp(warp);
    }
  }

 private:
  // A place in the ring of stages.
  struct Place {
    int stage = 0;
    uint32_t parity = 0;

    __device__ void Advance(int stages) {
      if (++stage < stages) return;
      stage = 0;
      parity ^= 1;
    }
  };

  __device__ static int Lane() { return static_cast<int>(threadIdx.x) % kWarp; }
  __device__ static int Group() { return Lane() / 4; }
  __device__ static int Pair() { return Lane() % 4; }

  __device__ void InitBarriers() {
    const int thread = static_cast<int>(threadIdx.x);
    if (thread == 0) {
      AllowSuccessor();
      head_.zero_pack = make_uint4(0, 0, 0, 0);
    }
    if (thread < kMaxStages) {
      InitBarrier(&head_.full[thread], kTileRows);
      InitBarrier(&head_.empty[thread], kDotWarps);
    }
    if (thread < kTurns) {
      InitBarrier(&head_.dotted[thread], kDotWarps);
      InitBarrier(&head_.summed[thread], 1);
    }
    if (thread < gate_tiles_) InitBarrier(&head_.scored[thread], 1);
    PublishBarriers();
  }

  __device__ std::byte* StageRow(int stage, int row) const {
    return stages_ + (stage * kTileRows + row) * p_.row_stride;
  }

  // The copy warp.

  __device__ void RunCopyWarp() {
    Place place;
    bool first_turn = true;
    // Row row_of(i) of `matrix` for the first `count` i; the others stay away.
    const auto order = [&](const void* matrix, int count, auto&& row_of) {
      if (!first_turn) Wait(&head_.empty[place.stage], place.parity ^ 1);
      const int i = Lane();
      if (i == 0) head_.ends[place.stage] = count == 0;
      if (i < count) {
        const auto* from = static_cast<const std::byte*>(matrix) +
                           static_cast<size_t>(Neuron(row_of(i))) * p_.row_bytes;
        CopyBulk(StageRow(place.stage, i), from, p_.row_bytes,
                 &head_.full[place.stage]);
      } else if (i < kTileRows) {
        Arrive(&head_.full[place.stage]);
      }
      __syncwarp();
      place.Advance(p_.stages);
      if (place.stage == 0) first_turn = false;
    };
    for (int first = 0; first < rows_; first += kTileRows) {
      order(p_.gate_proj, min(kTileRows, rows_ - first),
            [&](int i) { return first + i; });
    }
    int listed = 0;
    int scored = 0;  // Tiles that are known to be.
    for (int first = 0;; first += kTileRows) {
      for (; listed < first + kTileRows && scored < gate_tiles_; ++scored) {
        Wait(&head_.scored[scored], 0);
        listed = head_.listed[scored];
      }
      const int count = min(kTileRows, listed - first);
      if (count <= 0) break;
      order(p_.up_proj, count, [&](int i) { return head_.active[first + i]; });
    }
    order(nullptr, 0, [](int i) { return i; });
  }

  __device__ int Neuron(int row) const {
    return static_cast<int>(blockIdx.x) + row * static_cast<int>(gridDim.x);
  }

  // The dot warps.

  __device__ void RunDotWarp(int warp) {
    AwaitPredecessor();
    LoadHidden(warp);
    ClearForBatch<kDotThreads>(p_, p_.output_size);
    Place place;
    for (int tile = 0;; ++tile) {
      Wait(&head_.full[place.stage], place.parity);
      if (head_.ends[place.stage]) return;
      Sums sums;
      Multiply(place.stage, warp, sums);
      __syncwarp();
      if (Lane() == 0) Arrive(&head_.empty[place.stage]);
      const int turn = tile % kTurns;
      if (tile >= kTurns) Wait(&head_.summed[turn], (tile / kTurns - 1) % 2);
#pragma unroll
      for (int i = 0; i < 2 * kTokenTiles; ++i) {
        head_.sums[turn][warp][Lane()][i] = sums[i];
      }
      __syncwarp();
      if (Lane() == 0) Arrive(&head_.dotted[turn]);
      place.Advance(p_.stages);
    }
  }

  // Where this lane's pack of chunk `c` begins in a row.
  __device__ static int Offset(int warp, int c) {
    return c * kTurnBytes + warp * kChunkBytes + Pair() * kPackBytes;
  }

  // The columns of this warp, of all tokens.
  __device__ void LoadHidden(int warp) {
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
#pragma unroll
      for (int t = 0; t < kTokenTiles; ++t) {
        const int token = t * 8 + Group();
        const int offset = Offset(warp, c);
        hidden_[c][t] = make_uint4(0, 0, 0, 0);
        if (token < p_.tokens && offset < p_.row_bytes) {
          hidden_[c][t] = __ldcg(reinterpret_cast<const uint4*>(
              static_cast<const std::byte*>(p_.hidden_states) +
              static_cast<size_t>(token) * p_.row_bytes + offset));
        }
      }
    }
  }

  // A lane's pack of weights, as it comes, are two rows of one factor: its
  // first and third words row group, the others row group + 8. Each belongs to
  // hidden states of its own, so of two products each has one half that counts.
  __device__ void Multiply(int stage, int warp, Sums& sums) const {
    const std::byte* row = StageRow(stage, Group());
    float upper[kTokenTiles][4] = {};
    float lower[kTokenTiles][4] = {};
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const int offset = Offset(warp, c);
      const uint4 w = *reinterpret_cast<const uint4*>(
          offset < p_.row_bytes
              ? row + offset
              : reinterpret_cast<const std::byte*>(&head_.zero_pack));
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

  // The sum warp.

  __device__ void RunSumWarp() {
    AwaitPredecessor();
    int count = 0;  // Of active rows.
    int token_counts[2 * kTokenTiles] = {};
    for (int tile = 0; tile < gate_tiles_; ++tile) {
      Sums sums;
      TakeSums(tile, sums);
      Select(tile, sums, token_counts, &count);
    }
    // A tile's place is known by the time that the next one has come.
    GatedTile tile;
    for (int first = 0; first < count; first += kTileRows) {
      Sums up;
      TakeSums(gate_tiles_ + first / kTileRows, up);
      const GatedTile before = tile;
      tile = Gate(first, count, up);
      Store(before);
    }
    Store(tile);
    if (Lane() == 0) atomicAdd(p_.counters, count);
#pragma unroll
    for (int i = 0; i < 2 * kTokenTiles; ++i) {
      int sum = token_counts[i];
      sum += __shfl_xor_sync(kAllLanes, sum, 4);
      sum += __shfl_xor_sync(kAllLanes, sum, 8);
      sum += __shfl_xor_sync(kAllLanes, sum, 16);
      if (Group() == 0 && sum != 0) {
        atomicAdd(&p_.counters[1 + Token(i)], sum);
      }
    }
  }

  // What all dot warps found for a tile.
  __device__ void TakeSums(int tile, Sums& sums) {
    const int turn = tile % kTurns;
    Wait(&head_.dotted[turn], tile / kTurns % 2);
#pragma unroll
    for (float& sum : sums) sum = 0;
#pragma unroll
    for (int w = 0; w < kDotWarps; ++w) {
#pragma unroll
      for (int i = 0; i < 2 * kTokenTiles; ++i) {
        sums[i] += head_.sums[turn][w][Lane()][i];
      }
    }
    __syncwarp();
    if (Lane() == 0) Arrive(&head_.summed[turn]);
  }

  // What sums[i] is of.
  __device__ static int Token(int i) {
    return i / 2 * 8 + Pair() * 2 + i % 2;
  }

  // Of the rows of a tile, as bits, those for which `is` is true in some lane.
  __device__ static unsigned RowsOf(bool is) {
    const unsigned lanes = __ballot_sync(kAllLanes, is);
    unsigned rows = 0;
#pragma unroll
    for (int row = 0; row < kTileRows; ++row) {
      if ((lanes >> 4 * row & 0xf) != 0) rows |= 1u << row;
    }
    return rows;
  }
  __device__ static bool HasRow(unsigned rows) {
    return (rows >> Group() & 1) != 0;
  }
  // Of its rows, those before this lane's.
  __device__ static int Before(unsigned rows) {
    return __popc(rows & ((1u << Group()) - 1));
  }

  // Lists the active rows of a tile of gate_proj, and keeps their scores.
  __device__ void Select(int tile, const Sums& scores,
                         int (&token_counts)[2 * kTokenTiles], int* count) {
    const int row = tile * kTileRows + Group();
    float active[2 * kTokenTiles];
    bool any = false;
#pragma unroll
    for (int i = 0; i < 2 * kTokenTiles; ++i) {
      const bool is_active = row < rows_ && Token(i) < p_.tokens &&
                             IsActive(scores[i], p_.threshold);
      active[i] = is_active ? scores[i] : 0;
      token_counts[i] += is_active ? 1 : 0;
      any = any || is_active;
    }
    const unsigned rows = RowsOf(any);
    if (HasRow(rows)) {
      const int place = *count + Before(rows);
#pragma unroll
      for (int i = 0; i < 2 * kTokenTiles; ++i) {
        scores_[place][Token(i)] = active[i];
      }
      if (Pair() == 0) head_.active[place] = row;
    }
    *count += __popc(rows);
    if (Lane() == 0) head_.listed[tile] = *count;
    __syncwarp();
    if (Lane() == 0) Arrive(&head_.scored[tile]);
  }

  // h of a tile of active rows.
  struct GatedTile {
    Sums h;
    int first;          // Of the active rows.
    unsigned rows = 0;  // As bits, where h is not 0 for all tokens,
    int at;             // and the place of the first one, in lane 0.
  };

  __device__ GatedTile Gate(int first, int count, const Sums& up) {
    GatedTile tile;
    const int place = first + Group();
    bool matters = false;
#pragma unroll
    for (int i = 0; i < 2 * kTokenTiles; ++i) {
      const float score = place < count ? scores_[place][Token(i)] : 0;
      const float factor = p_.clamp_up && up[i] <= 0 ? 0 : up[i];
      tile.h[i] = score == 0 ? 0 : score * factor;
      matters = matters || tile.h[i] != 0;  // True of NaN.
    }
    tile.first = first;
    tile.rows = RowsOf(matters);
    if (Lane() == 0) tile.at = atomicAdd(p_.gated_count, __popc(tile.rows));
    return tile;
  }

  __device__ void Store(const GatedTile& tile) {
    if (tile.rows == 0) return;
    const int at = __shfl_sync(kAllLanes, tile.at, 0);
    if (!HasRow(tile.rows)) return;
    const int place = at + Before(tile.rows);
    if (Pair() == 0) {
      p_.gated_list[place] = Neuron(head_.active[tile.first + Group()]);
    }
#pragma unroll
    for (int i = 0; i < 2 * kTokenTiles; ++i) {
      StoreGated<T>(p_.gated_high, p_.gated_low,
                    static_cast<size_t>(place) * kTokens + Token(i), tile.h[i]);
    }
  }

  const BulkParams& p_;
  Head<kTokenTiles>& head_;
  float (*const scores_)[kTokens];  // 0 where inactive.
  std::byte* const stages_;
  const int rows_;
  const int gate_tiles_;
  // Of a dot warp: its columns of token `group` of each tile.
  uint4 hidden_[kChunks][kTokenTiles];
};

#endif  // __CUDA_ARCH__ >= 900

template <typename T, int kTokenTiles, int kChunks>
__global__ void __launch_bounds__(kThreads, 1)
    FusedGatedUpBulk(const __grid_constant__ BulkParams p) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) std::byte shared[];
  Block<T, kTokenTiles, kChunks>(p, shared).Run();
#else
  __trap();  // Built for older devices alone, and run on a newer one.
#endif
}

// What the registers of a dot warp hold.
constexpr int kMaxChunks = 12;

// Calls f with the token tiles and the chunks of a warp of the kernel for such
// a batch, as integral constants.
template <typename F>
cudaError_t DispatchChunks(int tokens, int hidden_size, F&& f) {
  const int chunks = (2 * hidden_size + kTurnBytes - 1) / kTurnBytes;
  const auto with_tiles = [&](auto tiles) {
    if (chunks <= 4) return f(tiles, std::integral_constant<int, 4>{});
    if (chunks <= 10) return f(tiles, std::integral_constant<int, 10>{});
    return f(tiles, std::integral_constant<int, kMaxChunks>{});
  };
  return tokens <= 8 ? with_tiles(std::integral_constant<int, 1>{})
                     : with_tiles(std::integral_constant<int, 2>{});
}

int MostRows(Device device, int intermediate_size) {
  const int blocks = FusedBlocks(device, intermediate_size);
  return (intermediate_size + blocks - 1) / blocks;
}

}  // namespace

bool FusedGatedUpBulkTakes(Device device, int tokens, int hidden_size,
                           int intermediate_size) {
  const int rows = MostRows(device, intermediate_size);
  if (!device.dependent_launch || !RowsAligned(hidden_size) ||
      tokens > kBulkTokens || rows > kMaxRows) {
    return false;
  }
  bool takes = false;
  DispatchChunks(tokens, hidden_size, [&](auto tiles, auto /*chunks*/) {
    takes = 2 * hidden_size <= kMaxChunks * kTurnBytes &&
            Stages<tiles>(device, hidden_size, rows) >= kMinStages;
    return cudaSuccess;
  });
  return takes;
}

cudaError_t PrepareFusedGatedUpBulk(Element element, Device device, int tokens,
                                    int hidden_size) {
  return DispatchChunks(tokens, hidden_size, [&](auto tiles, auto chunks) {
    return DispatchElement(element, [&](auto zero) {
      return AllowShared(FusedGatedUpBulk<decltype(zero), tiles, chunks>,
                         device.shared_bytes);
    });
  });
}

cudaError_t LaunchFusedGatedUpBulk(const FusedGatedUpParams& params,
                                   cudaStream_t stream) {
  return DispatchChunks(
      params.tokens, params.hidden_size, [&](auto tiles, auto chunks) {
        BulkParams bulk = {params};
        bulk.most_rows = MostRows(params.device, params.intermediate_size);
        bulk.stages =
            Stages<tiles>(params.device, params.hidden_size, bulk.most_rows);
        bulk.row_bytes = 2 * params.hidden_size;
        bulk.row_stride = RowStride(params.hidden_size);
        const int shared_bytes = kHeadBytes<tiles> +
                                 ScoreBytes<tiles>(bulk.most_rows) +
                                 bulk.stages * kTileRows * bulk.row_stride;
        return DispatchElement(params.element, [&](auto zero) {
          return LaunchDependent(
              FusedGatedUpBulk<decltype(zero), tiles, chunks>,
              dim3(FusedBlocks(params.device, params.intermediate_size)),
              kThreads, shared_bytes, params.device.dependent_launch, stream,
              bulk);
        });
      });
}

}  // namespace sparse_ffn::cuda
