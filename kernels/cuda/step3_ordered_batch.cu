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
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/launch_fused.h"
#include "kernels/cuda/step3_ordered_block.cuh"
#include "kernels/cuda/step3_ordered_stages.cuh"

namespace sparse_ffn::cuda {
namespace {

#if __CUDA_ARCH__ >= 900

// Tile blockIdx.x of the columns, group blockIdx.y.
template <typename T, int kTokens>
class Block {
  using S = Shares<kTokens>;

 public:
  __device__ Block(const OrderedDownParams& p, DownShared<kTokens>* shared)
      : p_(p), shared_(*shared), stage_rows_(p, shared + 1) {}

  __device__ void Run() {
    AllowSuccessor();
    const int thread = static_cast<int>(threadIdx.x);
    if (thread < kStages) {
      InitBarrier(&shared_.full[thread], kMostStageRows);
      PublishBarriers();
    }
    if (thread < kRowBytes / static_cast<int>(sizeof(uint4))) {
      shared_.zero_row[thread] = make_uint4(0, 0, 0, 0);
    }
    stage_rows_.Make(&shared_.stages, &shared_.group_rows);
    if (Warp() < kDownSumWarps) {
      tokens_ = WarpTokens<kTokens>(Warp(), p_.active, p_.tokens);
    }
    __syncthreads();
    stages_ = shared_.stages;
    if (Warp() < kDownSumWarps) {
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
  static constexpr int kRing = kRingRows<kTokens>;

  using Sums = float[S::kPacks][kPack];
  using Gated = float[S::kWarpTokens][kLaneRows];

  __device__ static int Warp() { return threadIdx.x / kWarp; }
  __device__ static int Lane() { return threadIdx.x % kWarp; }
  // Of pack k of this lane, in the tile.
  __device__ static int Column(int k) {
    const int pack = Warp() % S::kTokenWarps * S::kPacks + k;
    return (pack * kWarp + Lane()) * kPack;
  }

  // Whether stage i, of which so many rows come before, has to be left before
  // the ring has room for one that ends at row `end`, stage `last`.
  __device__ static bool IsInTheWay(int i, int before, int last, int end) {
    return end - before > kRing || last - i >= kStages;
  }

  __device__ void CopyRows() {
    int oldest = 0;  // Stage in the ring.
    for (int i = 0; i < stages_; ++i) {
      const int end = stage_rows_[i].before + stage_rows_[i].count;
      for (; IsInTheWay(oldest, stage_rows_[oldest].before, i, end); ++oldest) {
        __syncwarp();
        DownBarriers::Await(oldest % kStages);
      }
      if (i >= kAhead) AwaitStage(i - kAhead);
      CopyStage(i);
    }
  }
  // This warp's share, a row a lane.
  __device__ void CopyStage(int i) {
    const int row = Lane() * kDownCopyWarps + Warp() - kDownSumWarps;
    if (row >= kMostStageRows) return;
    uint64_t* full = &shared_.full[i % kStages];
    const StageRows rows = stage_rows_[i];
    if (row >= rows.count) {
      Arrive(full);
      return;
    }
    const int column = blockIdx.x * kTileColumns;
    const T* from =
        static_cast<const T*>(p_.down_proj) +
        static_cast<size_t>(stage_rows_.Neuron(rows, row)) * p_.hidden_size +
        column;
    CopyBulk(shared_.rows[(rows.before + row) % kRing], from,
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
        DownBarriers::Arrive(i % kStages);
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
      const float* from =
          p_.gated + static_cast<size_t>(tokens_[k]) * p_.intermediate_size +
          first;
#pragma unroll
      for (int r = 0; r < kLaneRows; ++r) {
        const int row = r * kWarp + Lane();
        gated[k][r] = row < count && tokens_[k] < p_.tokens ? from[row] : 0;
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
          const int row = (rows.before + r * kWarp + Lane()) % kRing;
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
      if (tokens_[t] >= p_.tokens) continue;
      const size_t row =
          static_cast<size_t>(blockIdx.y) * p_.tokens + tokens_[t];
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
  DownShared<kTokens>& shared_;
  const GroupStages stage_rows_;
  WarpTokens<kTokens> tokens_;
  int stages_ = 0;
  // Of this warp's tokens.
  Sums all_[S::kWarpTokens] = {};    // The group's blocks so far.
  Sums block_[S::kWarpTokens] = {};  // The block at hand, of the fused launch.
};

#endif  // __CUDA_ARCH__ >= 900

template <typename T, int kTokens>
__global__ void __launch_bounds__(kDownThreads, 1)
    OrderedDown(const __grid_constant__ OrderedDownParams p) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) std::byte shared[];
  Block<T, kTokens>(p, reinterpret_cast<DownShared<kTokens>*>(shared)).Run();
#else
  __trap();  // Built for older devices alone, and run on a newer one.
#endif
}

template <int kTokens>
int SharedBytes(int blocks, int groups, int intermediate_size) {
  return static_cast<int>(sizeof(DownShared<kTokens>) +
                          GroupSize(intermediate_size, blocks, groups).Bytes());
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
  const int blocks = FusedBlocks(device, intermediate_size);
  const int groups = SumGroups(device.sm_count, hidden_size);
  bool fits = device.dependent_launch && RowsAligned(hidden_size) &&
              MostDealt(blocks, groups) <= kWarp;
  ForEachTokenTiles([&](auto token_tiles) {
    fits = fits &&
           SharedBytes<8 * token_tiles>(blocks, groups, intermediate_size) <=
               device.shared_bytes;
    return cudaSuccess;
  });
  return fits;
}

cudaError_t LaunchOrderedDown(const OrderedDownParams& params,
                              cudaStream_t stream) {
  const int tiles = (params.hidden_size + kTileColumns - 1) / kTileColumns;
  const int groups = SumGroups(params.device.sm_count, params.hidden_size);
  return DispatchElement(params.element, [&](auto zero) {
    return DispatchTokenTiles(params.tokens, [&](auto token_tiles) {
      return LaunchDependent(
          OrderedDown<decltype(zero), 8 * token_tiles>, dim3(tiles, groups),
          kDownThreads,
          SharedBytes<8 * token_tiles>(params.blocks, groups,
                                       params.intermediate_size),
          params.device.dependent_launch, stream, params);
    });
  });
}

}  // namespace sparse_ffn::cuda
