// Step 3 of a batch in the order in which the kernel of all steps adds up: a
// token gets the same bits from both. For compute capability 9.0 and newer.
//
// There, each block of the fused launch adds up its neurons one after the
// other, and LaunchFusedSum its group's blocks one after the other. Here, a
// block does that for a tile of columns and a group, in stages that each hold
// rows of one block of the fused launch: copy warps have them copied into a
// ring in shared memory, and each sum warp adds up those that are active for
// tokens of its own.
#include <algorithm>
#include <cstddef>

#include "kernels/cuda/bulk_copy.cuh"
#include "kernels/cuda/dealt_neurons.cuh"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/named_barrier.cuh"

namespace sparse_ffn::cuda {
namespace {

constexpr int kSumWarps = 16;
constexpr int kSumThreads = kSumWarps * kWarp;
constexpr int kCopyWarps = 4;  // The last ones.
constexpr int kThreads = kSumThreads + kCopyWarps * kWarp;
// Stages have as many rows as a block has of the fused launch, or parts of
// those, and follow each other in the ring.
constexpr int kLaneRows = 2;  // Of a stage, most.
constexpr int kStageRows = kLaneRows * kWarp;
constexpr int kRingRows = 192;
constexpr int kStages = 8;  // In the ring at once.
constexpr int kTileColumns = 2 * kWarp * kPack;
constexpr int kRowBytes = kTileColumns * 2;
// Each stage has a barrier, at which sum warps tell that they have left it.
constexpr int kFirstStageBarrier = 1;
static_assert(kFirstStageBarrier + kStages <= kHardwareBarriers);
static_assert(kStageRows % kCopyWarps == 0);

// How the sum warps share so many tokens, and a tile.
template <int kTokens>
struct Shares {
  static constexpr int kWarpTokens = std::max(kTokens / kSumWarps, 1);
  static constexpr int kTokenWarps = std::max(kSumWarps / kTokens, 1);
  // Of a lane: columns kPack * kWarp apart.
  static constexpr int kPacks = kTileColumns / kPack / kWarp / kTokenWarps;
  static_assert(kPacks >= 1);
};

// The rows of down_proj in a stage: of gated neurons side by side.
struct alignas(16) StageRows {
  int first;   // Of them all, in the list and in `gated`,
  int neuron;  // and where its number is among those of the group.
  int before;  // Rows of earlier stages.
  short count;
  short is_last;  // Of their block of the fused launch.
};

// A row that is active for a token.
struct alignas(8) ActiveRow {
  float h;
  int at;  // In Shared.
};
constexpr int kMostAtOnce = 4;  // Active rows that a warp reads at once.

// In shared memory; the StageRows and the numbers of the neurons follow it.
template <int kTokens>
struct Shared {
  std::byte rows[kRingRows][kRowBytes];
  uint4 zero_row[kRowBytes / sizeof(uint4)];
  // With one more round of rows of zeros.
  alignas(16) ActiveRow
      active[kSumWarps][Shares<kTokens>::kWarpTokens][kStageRows + kMostAtOnce];
  uint64_t full[kStages];
  int stages;
  int group_rows;  // Of all of them.
};

// Of a group.
struct GroupSize {
  int blocks;   // Of the fused launch, most.
  int neurons;  // Of each of those, most.

  __host__ __device__ GroupSize(int all_neurons, int all_blocks, int groups)
      : blocks((all_blocks + groups - 1) / groups),
        neurons((all_neurons + all_blocks - 1) / all_blocks) {}
  __host__ __device__ int MostStages() const {
    return blocks * ((neurons + kStageRows - 1) / kStageRows);
  }
};

#if __CUDA_ARCH__ >= 900

// Tile blockIdx.x of the columns, group blockIdx.y.
template <typename T, int kTokens>
class Block {
  using S = Shares<kTokens>;

 public:
  __device__ Block(const OrderedDownParams& p, Shared<kTokens>* shared)
      : p_(p),
        size_(p.intermediate_size, p.blocks, static_cast<int>(gridDim.y)),
        shared_(*shared),
        stage_rows_(reinterpret_cast<StageRows*>(shared + 1)),
        neurons_(reinterpret_cast<int*>(stage_rows_ + size_.MostStages())) {}

  __device__ void Run() {
    AllowSuccessor();
    const int thread = static_cast<int>(threadIdx.x);
    if (thread < kStages) {
      InitBarrier(&shared_.full[thread], kStageRows);
      PublishBarriers();
    }
    if (thread < kRowBytes / static_cast<int>(sizeof(uint4))) {
      shared_.zero_row[thread] = make_uint4(0, 0, 0, 0);
    }
    // These wait for the kernel before.
    if (Warp() < kLastWarp) {
      LoadNeurons();
    } else {
      MakeStages();
    }
    __syncthreads();
    stages_ = shared_.stages;
    if (Warp() < kSumWarps) {
      AddUp();
      Store();
    } else {
      CopyRows();
    }
  }

 private:
  // Stages on their way at once: as many as keep the memory busy, so that the
  // first is soon there.
  static constexpr int kAhead = 2;
  static constexpr int kAtOnce = S::kWarpTokens == 1 ? kMostAtOnce : 2;
  static constexpr int kLastWarp = kThreads / kWarp - 1;

  using Sums = float[S::kPacks][kPack];
  using Gated = float[S::kWarpTokens][kLaneRows];

  __device__ static int Warp() { return threadIdx.x / kWarp; }
  __device__ static int Lane() { return threadIdx.x % kWarp; }
  // Token k of this warp.
  __device__ static int Token(int k) {
    return Warp() / S::kTokenWarps * S::kWarpTokens + k;
  }
  // Of pack k of this lane, in the tile.
  __device__ static int Column(int k) {
    const int pack = Warp() % S::kTokenWarps * S::kPacks + k;
    return (pack * kWarp + Lane()) * kPack;
  }

  // Blocks of the fused launch in the group,
  __device__ int Blocks() const {
    return DealtTo(p_.blocks, static_cast<int>(gridDim.y),
                   static_cast<int>(blockIdx.y));
  }
  // the i-th,
  __device__ static int FusedBlock(int i) {
    return static_cast<int>(blockIdx.y) + i * static_cast<int>(gridDim.y);
  }
  // and its first neuron in the list.
  __device__ int FirstOf(int i) const {
    return DealtBefore(p_.intermediate_size, p_.blocks, FusedBlock(i));
  }

  // The numbers of all neurons that may be gated, before it is known how many
  // are. By all warps but the last.
  __device__ void LoadNeurons() {
    const int blocks = Blocks();
    int i = Warp();
    int first = FirstOf(i);
    AwaitPredecessor();
    for (; i < blocks; i += kLastWarp, first = FirstOf(i)) {
      const int all = DealtTo(p_.intermediate_size, p_.blocks, FusedBlock(i));
      int* numbers = neurons_ + i * size_.neurons;
      constexpr int kLoads = 4;  // In flight at once.
      for (int at = Lane(); at < all; at += kLoads * kWarp) {
        int loaded[kLoads];
#pragma unroll
        for (int k = 0; k < kLoads; ++k) {
          loaded[k] =
              at + k * kWarp < all ? p_.list[first + at + k * kWarp] : 0;
        }
#pragma unroll
        for (int k = 0; k < kLoads; ++k) {
          if (at + k * kWarp < all) numbers[at + k * kWarp] = loaded[k];
        }
      }
    }
  }

  // By the last warp.
  __device__ void MakeStages() {
    const int blocks = Blocks();
    int i = Lane();
    int first = FirstOf(i);
    AwaitPredecessor();
    int stages = 0;
    int rows = 0;
    for (int done = 0; done < blocks;
         done += kWarp, i += kWarp, first = FirstOf(i)) {
      const int count = i < blocks ? p_.block_counts[FusedBlock(i)] : 0;
      const int parts = (count + kStageRows - 1) / kStageRows;
      // Both sums at once.
      constexpr int kBits = 16;
      int sum = count | parts << kBits;
#pragma unroll
      for (int lanes = 1; lanes < kWarp; lanes *= 2) {
        const int other = __shfl_up_sync(kAllLanes, sum, lanes);
        if (Lane() >= lanes) sum += other;
      }
      const int before = rows + (sum & ((1 << kBits) - 1)) - count;
      const int stage = stages + (sum >> kBits) - parts;
      // All parts alike, so that none is short.
      const int part = parts == 0 ? 0 : (count + parts - 1) / parts;
      for (int k = 0; k < parts; ++k) {
        const int at = k * part;
        stage_rows_[stage + k] = {first + at, i * size_.neurons + at,
                                  before + at,
                                  static_cast<short>(min(part, count - at)),
                                  static_cast<short>(k + 1 == parts)};
      }
      sum = __shfl_sync(kAllLanes, sum, kWarp - 1);
      rows += sum & ((1 << kBits) - 1);
      stages += sum >> kBits;
    }
    if (Lane() == 0) {
      shared_.stages = stages;
      shared_.group_rows = rows;
    }
  }

  // Whether stage i, of which so many rows come before, has to be left before
  // the ring has room for one that ends at row `end`, stage `last`.
  __device__ static bool IsInTheWay(int i, int before, int last, int end) {
    return end - before > kRingRows || last - i >= kStages;
  }

  __device__ void CopyRows() {
    int oldest = 0;  // Stage in the ring.
    for (int i = 0; i < stages_; ++i) {
      const int end = stage_rows_[i].before + stage_rows_[i].count;
      for (; IsInTheWay(oldest, stage_rows_[oldest].before, i, end); ++oldest) {
        __syncwarp();
        WaitAt<kThreads>(kFirstStageBarrier + oldest % kStages);
      }
      if (i >= kAhead) AwaitStage(i - kAhead);
      CopyStage(i);
    }
  }
  // This warp's share, a row a lane.
  __device__ void CopyStage(int i) {
    const int row = Lane() * kCopyWarps + Warp() - kSumWarps;
    if (row >= kStageRows) return;
    uint64_t* full = &shared_.full[i % kStages];
    const StageRows rows = stage_rows_[i];
    if (row >= rows.count) {
      Arrive(full);
      return;
    }
    const int column = blockIdx.x * kTileColumns;
    const T* from =
        static_cast<const T*>(p_.down_proj) +
        static_cast<size_t>(neurons_[rows.neuron + row]) * p_.hidden_size +
        column;
    CopyBulk(shared_.rows[(rows.before + row) % kRingRows], from,
             min(kTileColumns, p_.hidden_size - column) * 2, full);
  }
  __device__ void AwaitStage(int i) {
    Wait(&shared_.full[i % kStages], i / kStages % 2);
  }

  __device__ void AddUp() {
    Gated gated;
    LoadGated(0, gated);
    for (int i = 0; i < stages_; ++i) {
      const StageRows rows = stage_rows_[i];
      int counts[S::kWarpTokens];
      ListActive(rows, gated, counts);
      LoadGated(i + 1, gated);
      AwaitStage(i);
#pragma unroll
      for (int k = 0; k < S::kWarpTokens; ++k) {
        AddRows(shared_.active[Warp()][k], counts[k], block_[k]);
        if (rows.is_last != 0) EndBlock(k);
      }
      __syncwarp();
      if (IsInTheWay(i, rows.before, stages_ - 1, shared_.group_rows)) {
        ArriveAt<kThreads>(kFirstStageBarrier + i % kStages);
      }
    }
  }

  // h of this warp's tokens for the rows of stage i, those of a lane kWarp
  // apart; 0 where there are none.
  __device__ void LoadGated(int i, Gated& gated) const {
    const bool exists = i < stages_;
    const int first = exists ? stage_rows_[i].first : 0;
    const int count = exists ? stage_rows_[i].count : 0;
#pragma unroll
    for (int k = 0; k < S::kWarpTokens; ++k) {
      const float* from = p_.gated +
                          static_cast<size_t>(Token(k)) * p_.intermediate_size +
                          first;
#pragma unroll
      for (int r = 0; r < kLaneRows; ++r) {
        const int row = r * kWarp + Lane();
        gated[k][r] = row < count && Token(k) < p_.tokens ? from[row] : 0;
      }
    }
  }

  // The rows of a stage that are active for each token of this warp, in order.
  __device__ void ListActive(const StageRows& rows, const Gated& gated,
                             int (&counts)[S::kWarpTokens]) {
#pragma unroll
    for (int k = 0; k < S::kWarpTokens; ++k) {
      ActiveRow* list = shared_.active[Warp()][k];
      int count = 0;
#pragma unroll
      for (int r = 0; r < kLaneRows; ++r) {
        const float h = gated[k][r];
        const unsigned active = __ballot_sync(kAllLanes, h != 0);  // Or NaN.
        if (h != 0) {
          const int row = (rows.before + r * kWarp + Lane()) % kRingRows;
          list[count + __popc(active & ((1u << Lane()) - 1))] = {
              h, Place(shared_.rows[row])};
        }
        count += __popc(active);
      }
      if (Lane() < kAtOnce) list[count + Lane()] = {0, Place(shared_.zero_row)};
      counts[k] = count;
    }
    __syncwarp();
  }
  __device__ int Place(const void* at) const {
    return static_cast<int>(static_cast<const std::byte*>(at) -
                            reinterpret_cast<const std::byte*>(&shared_));
  }

  // Adds h times the rows of the list, in order: kAtOnce are read at once, rows
  // of zeros after the last one.
  __device__ void AddRows(const ActiveRow* list, int count, Sums& sums) const {
    const auto* columns =
        reinterpret_cast<const std::byte*>(&shared_) + Column(0) * 2;
    constexpr int kPackStride = kWarp * kPackBytes;
    for (int first = 0; first < count; first += kAtOnce) {
      float h[kAtOnce];
      Pack<T> weights[kAtOnce][S::kPacks];
#pragma unroll
      for (int r = 0; r < kAtOnce; ++r) {
        const ActiveRow row = list[first + r];
        h[r] = row.h;
#pragma unroll
        for (int k = 0; k < S::kPacks; ++k) {
          weights[r][k] = *reinterpret_cast<const Pack<T>*>(columns + row.at +
                                                            k * kPackStride);
        }
      }
#pragma unroll
      for (int r = 0; r < kAtOnce; ++r) {
#pragma unroll
        for (int k = 0; k < S::kPacks; ++k) {
          float w[kPack];
          weights[r][k].Unpack(w);
#pragma unroll
          for (int c = 0; c < kPack; ++c) {
            sums[k][c] = fmaf(h[r], w[c], sums[k][c]);
          }
        }
      }
    }
  }

  __device__ void EndBlock(int token) {
#pragma unroll
    for (int k = 0; k < S::kPacks; ++k) {
#pragma unroll
      for (int c = 0; c < kPack; ++c) {
        all_[token][k][c] += block_[token][k][c];
        block_[token][k][c] = 0;
      }
    }
  }

  __device__ void Store() const {
#pragma unroll
    for (int t = 0; t < S::kWarpTokens; ++t) {
      if (Token(t) >= p_.tokens) return;
      const size_t row = static_cast<size_t>(blockIdx.y) * p_.tokens + Token(t);
#pragma unroll
      for (int k = 0; k < S::kPacks; ++k) {
        const int column = blockIdx.x * kTileColumns + Column(k);
        if (column >= p_.hidden_size) break;
        auto* to =
            reinterpret_cast<float4*>(p_.parts + row * p_.part_stride + column);
        const float(&s)[kPack] = all_[t][k];
        to[0] = make_float4(s[0], s[1], s[2], s[3]);
        to[1] = make_float4(s[4], s[5], s[6], s[7]);
      }
    }
  }

  const OrderedDownParams& p_;
  const GroupSize size_;
  Shared<kTokens>& shared_;
  StageRows* const stage_rows_;
  int* const neurons_;  // Of each block of the group size_.neurons.
  int stages_ = 0;
  // Of this warp's tokens.
  Sums all_[S::kWarpTokens] = {};    // The group's blocks so far.
  Sums block_[S::kWarpTokens] = {};  // The block at hand, of the fused launch.
};

#endif  // __CUDA_ARCH__ >= 900

template <typename T, int kTokens>
__global__ void __launch_bounds__(kThreads, 1)
    OrderedDown(const __grid_constant__ OrderedDownParams p) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) std::byte shared[];
  Block<T, kTokens>(p, reinterpret_cast<Shared<kTokens>*>(shared)).Run();
#else
  __trap();  // Built for older devices alone, and run on a newer one.
#endif
}

template <int kTokens>
int SharedBytes(int blocks, int groups, int intermediate_size) {
  const GroupSize size(intermediate_size, blocks, groups);
  return static_cast<int>(sizeof(Shared<kTokens>) +
                          size.MostStages() * sizeof(StageRows) +
                          size.blocks * size.neurons * sizeof(int));
}

}  // namespace

cudaError_t PrepareOrderedDown(Element element, Device device) {
  return ForEachTokenTiles([&](auto token_tiles) {
    return DispatchElement(element, [&](auto zero) {
      return AllowShared(OrderedDown<decltype(zero), 8 * token_tiles>,
                         device.shared_bytes);
    });
  });
}

bool OrderedDownTakes(Device device, int hidden_size, int intermediate_size) {
  return device.dependent_launch && RowsAligned(hidden_size) &&
         SharedBytes<kBatchFormTokens>(FusedBlocks(device, intermediate_size),
                                       SumGroups(device.sm_count, hidden_size),
                                       intermediate_size) <=
             device.shared_bytes;
}

cudaError_t LaunchOrderedDown(const OrderedDownParams& params,
                              cudaStream_t stream) {
  const int tiles = (params.hidden_size + kTileColumns - 1) / kTileColumns;
  const int groups = SumGroups(params.device.sm_count, params.hidden_size);
  return DispatchElement(params.element, [&](auto zero) {
    return DispatchTokenTiles(params.tokens, [&](auto token_tiles) {
      return LaunchDependent(
          OrderedDown<decltype(zero), 8 * token_tiles>, dim3(tiles, groups),
          kThreads,
          SharedBytes<8 * token_tiles>(params.blocks, groups,
                                       params.intermediate_size),
          params.device.dependent_launch, stream, params);
    });
  });
}

}  // namespace sparse_ffn::cuda
