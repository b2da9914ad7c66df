// Step 3 of a batch in the order in which the kernel of all steps adds up: a
// token gets the same bits from both. For compute capability 9.0 and newer.
//
// There, each block of the fused launch adds up its neurons one after the
// other, and LaunchFusedSum its group's blocks one after the other. Here, a
// block does that for a tile of columns and a group: each of its sum warps has
// tokens of its own, and passes over neurons that are inactive for them. One
// warp more has the rows copied into a ring in shared memory.
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
constexpr int kThreads = kSumThreads + kWarp;  // The last warp copies.
constexpr int kRows = kWarp;                   // Of a stage: one a lane.
constexpr int kStages = 6;
constexpr int kTileColumns = 2 * kWarp * kPack;
// Each stage has a barrier, at which sum warps tell that they have left it.
constexpr int kFirstStageBarrier = 1;
static_assert(kFirstStageBarrier + kStages <= kHardwareBarriers);

// How the sum warps share so many tokens, and a tile.
template <int kTokens>
struct Shares {
  static constexpr int kWarpTokens = std::max(kTokens / kSumWarps, 1);
  static constexpr int kTokenWarps = std::max(kSumWarps / kTokens, 1);
  // Of a lane: columns kPack * kWarp apart.
  static constexpr int kPacks = kTileColumns / kPack / kWarp / kTokenWarps;
  static_assert(kPacks >= 1);
};

// A row of down_proj that a block needs.
struct ListedRow {
  int neuron;
  int place;  // In the list and among the gated neurons; ~place where the row
              // is the last one of its block of the fused launch.
};

// In shared memory; the ListedRows follow it.
struct Shared {
  std::byte rows[kStages][kRows][kTileColumns * 2];
  uint64_t full[kStages];
};

#if __CUDA_ARCH__ >= 900

// Tile blockIdx.x of the columns, group blockIdx.y.
template <typename T, int kTokens>
class Block {
  using S = Shares<kTokens>;

 public:
  __device__ Block(const OrderedDownParams& p, Shared* shared)
      : p_(p),
        shared_(*shared),
        list_(reinterpret_cast<ListedRow*>(shared + 1)) {}

  __device__ void Run() {
    if (threadIdx.x < kStages) {
      InitBarrier(&shared_.full[threadIdx.x], kWarp);
      PublishBarriers();
    }
    MakeList();
    stages_ = (count_ + kRows - 1) / kRows;
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
  // Stages that the gated neurons are read ahead.
  static constexpr int kGatedAhead = 3;

  using Sums = float[S::kPacks][kPack];

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

  // Block `i` of the group, among those of the fused launch.
  __device__ static int FusedBlock(int i) {
    return static_cast<int>(blockIdx.y) + i * static_cast<int>(gridDim.y);
  }
  // Gated neurons of the group's first `blocks` blocks, in all lanes.
  __device__ int CountOf(int blocks) const {
    int count = 0;
    for (int i = Lane(); i < blocks; i += kWarp) {
      count += p_.block_counts[FusedBlock(i)];
    }
    return __reduce_add_sync(kAllLanes, count);
  }
  // Of the group, in order. Ends with a barrier.
  __device__ void MakeList() {
    const int blocks = DealtTo(p_.blocks, static_cast<int>(gridDim.y),
                               static_cast<int>(blockIdx.y));
    for (int i = Warp(); i < blocks; i += kThreads / kWarp) {
      const int block = FusedBlock(i);
      const int first = DealtBefore(p_.intermediate_size, p_.blocks, block);
      const int all =
          DealtBefore(p_.intermediate_size, p_.blocks, block + 1) - first;
      const int count = p_.block_counts[block];
      const int before = CountOf(i);
      // Read ahead of the counts: what is beyond them is not used.
      for (int k = Lane(); k < all; k += kWarp) {
        const int place = first + k;
        const int neuron = p_.list[place];
        if (k >= count) continue;
        list_[before + k] = {neuron, k + 1 == count ? ~place : place};
      }
    }
    count_ = CountOf(blocks);
    __syncthreads();
  }

  __device__ void CopyRows() {
    for (int i = 0; i < stages_; ++i) {
      if (i >= kStages) {
        __syncwarp();
        WaitAt<kThreads>(kFirstStageBarrier + i % kStages);
      }
      if (i >= kAhead) AwaitStage(i - kAhead);
      CopyStage(i);
    }
  }
  __device__ void CopyStage(int i) {
    uint64_t* full = &shared_.full[i % kStages];
    const int at = i * kRows + Lane();
    if (at >= count_) {
      Arrive(full);
      return;
    }
    const int column = blockIdx.x * kTileColumns;
    const T* row = static_cast<const T*>(p_.down_proj) +
                   static_cast<size_t>(list_[at].neuron) * p_.hidden_size +
                   column;
    CopyBulk(shared_.rows[i % kStages][Lane()], row,
             min(kTileColumns, p_.hidden_size - column) * 2, full);
  }
  __device__ void AwaitStage(int i) {
    Wait(&shared_.full[i % kStages], i / kStages % 2);
  }

  __device__ void AddUp() {
    float gated[kGatedAhead][S::kWarpTokens];
#pragma unroll
    for (int a = 0; a < kGatedAhead; ++a) LoadGated(a, gated[a]);
    for (int i = 0; i < stages_; ++i) {
      AwaitStage(i);
      AddStage(i, gated[0]);
      if (i + kStages < stages_) {
        ArriveAt<kThreads>(kFirstStageBarrier + i % kStages);
      }
#pragma unroll
      for (int k = 0; k < S::kWarpTokens; ++k) {
#pragma unroll
        for (int a = 1; a < kGatedAhead; ++a) gated[a - 1][k] = gated[a][k];
      }
      LoadGated(i + kGatedAhead, gated[kGatedAhead - 1]);
    }
  }

  // h of this warp's tokens for the rows of stage i, one a lane.
  __device__ void LoadGated(int i, float (&gated)[S::kWarpTokens]) const {
    const int at = i * kRows + Lane();
    const int place = at < count_ ? list_[at].place : 0;
#pragma unroll
    for (int k = 0; k < S::kWarpTokens; ++k) {
      gated[k] = 0;
      if (at < count_ && Token(k) < p_.tokens) {
        gated[k] =
            p_.gated[static_cast<size_t>(Token(k)) * p_.intermediate_size +
                     (place < 0 ? ~place : place)];
      }
    }
  }

  __device__ void AddStage(int i, const float (&gated)[S::kWarpTokens]) {
    const std::byte* rows = shared_.rows[i % kStages][0];
    const int at = i * kRows + Lane();
    const unsigned ends =
        __ballot_sync(kAllLanes, at < count_ && list_[at].place < 0);
#pragma unroll
    for (int k = 0; k < S::kWarpTokens; ++k) {
      unsigned active = __ballot_sync(kAllLanes, gated[k] != 0);  // Or NaN.
      for (unsigned left = ends; left != 0; left &= left - 1) {
        const unsigned up_to_end = left ^ (left - 1);
        AddRows(rows, gated[k], active & up_to_end, block_[k]);
        active &= ~up_to_end;
        EndBlock(k);
      }
      AddRows(rows, gated[k], active, block_[k]);
    }
  }

  // Adds h times the rows of which `active` has a bit, in order. Two are read
  // at once.
  __device__ static void AddRows(const std::byte* rows, float gated,
                                 unsigned active, Sums& sums) {
    while (active != 0) {
      float h[2];
      Pack<T> weights[2][S::kPacks];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        // Some row where there is none left: it is not added.
        const int row = active != 0 ? __ffs(static_cast<int>(active)) - 1 : 0;
        h[r] = __shfl_sync(kAllLanes, gated, row);
        if (active == 0) h[r] = 0;
        active &= active - 1;
#pragma unroll
        for (int k = 0; k < S::kPacks; ++k) {
          weights[r][k] = *reinterpret_cast<const Pack<T>*>(
              rows + (row * kTileColumns + Column(k)) * 2);
        }
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        if (r > 0 && h[r] == 0) break;
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
  Shared& shared_;
  ListedRow* const list_;
  int count_ = 0;
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
  WaitForPredecessor();
  Block<T, kTokens>(p, reinterpret_cast<Shared*>(shared)).Run();
#else
  __trap();  // Built for older devices alone, and run on a newer one.
#endif
}

int SharedBytes(int blocks, int groups, int intermediate_size) {
  const int most =
      MostDealt(blocks, groups) * MostDealt(intermediate_size, blocks);
  return static_cast<int>(sizeof(Shared) + most * sizeof(ListedRow));
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
         SharedBytes(FusedBlocks(device, intermediate_size),
                     SumGroups(device.sm_count, hidden_size),
                     intermediate_size) <= device.shared_bytes;
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
          SharedBytes(params.blocks, groups, params.intermediate_size),
          params.device.dependent_launch, stream, params);
    });
  });
}

}  // namespace sparse_ffn::cuda
