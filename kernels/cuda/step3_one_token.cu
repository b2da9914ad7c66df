// Step 3 for one token.
#include <algorithm>

#include "kernels/cuda/add_quad.cuh"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/launch_steps.h"

namespace sparse_ffn::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;
// A block sums a tile of columns: kSlices warps side by side, kPack columns a
// lane.
constexpr int kSlices = 4;
constexpr int kGroups = kWarps / kSlices;
constexpr int kTilePacks = kSlices * kWarp;
constexpr int kTileColumns = kTilePacks * kPack;
// Rows in flight at once in each warp, and list entries that it has at hand.
constexpr int kRows = 10;
constexpr int kEntries = kWarp / kRows * kRows;

// A listed neuron, one a lane.
struct Entry {
  int neuron;  // -1: none, or its row is not to be used.
  float h;     // 0 then.
};

// Adds the rows of `entries` of the warp's lanes to sums. `columns`: this
// lane's of the first row.
template <typename T>
__device__ void AddRows(const T* columns, int hidden_size, Entry entry,
                        int entries, float (&sums)[kPack]) {
  for (int first = 0; first < entries; first += kRows) {
    Pack<T> rows[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int neuron = __shfl_sync(kAllLanes, entry.neuron, first + r);
      const size_t offset = static_cast<size_t>(static_cast<unsigned>(neuron)) *
                            static_cast<unsigned>(hidden_size);
      rows[r] = LoadWeightsIf(neuron >= 0, columns + offset);
    }
    __syncwarp();
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float h = __shfl_sync(kAllLanes, entry.h, first + r);
      float w[kPack];
      rows[r].Unpack(w);
#pragma unroll
      for (int k = 0; k < kPack; ++k) sums[k] = fmaf(h, w[k], sums[k]);
    }
  }
}

// Adds this warp's share of the listed neurons to sums: those at position
// `first` and every `step` after it.
template <typename T>
__device__ void SumRows(const SparseDownParams& p, const T* columns, int first,
                        int step, float (&sums)[kPack]) {
  const int lane = threadIdx.x % kWarp;
  int count = p.intermediate_size;
  for (int i0 = first; i0 < count; i0 += kEntries * step) {
    // The count and the entries are loaded at once: what turns out to lie
    // beyond the count is not used.
    const int i = i0 + lane * step;
    Entry entry = {-1, 0};
    if (i < p.intermediate_size) entry = {p.list[i], p.gated[i]};
    count = *p.list_count;
    const bool listed = lane < kEntries && i < count;
    const int entries = __popc(__ballot_sync(kAllLanes, listed));
    // A row may hold anything where h is 0.
    if (!listed || entry.h == 0) entry = {-1, 0};
    AddRows(columns, p.hidden_size, entry, entries, sums);
  }
}

// A tile's sums in each group of warps, in halves of a pack.
using Parts = float4[kGroups][2][kTilePacks];

// Adds the groups' sums up, four columns a thread, into the output.
__device__ void AddParts(const SparseDownParams& p, const Parts& parts) {
  const int pack = threadIdx.x / 2;
  const int half = threadIdx.x % 2;
  const int column = blockIdx.x * kTileColumns + threadIdx.x * (kPack / 2);
  if (pack >= kTilePacks || column >= p.hidden_size) return;
  float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
  for (int g = 0; g < kGroups; ++g) AddQuad(&sum, parts[g][half][pack]);
  AddQuad(p.output + column, sum);
}

// A block sums a tile of columns over its share of the listed neurons, which
// its groups of warps take in turn. blockIdx: x tile, y share.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    OneTokenDown(const SparseDownParams p) {
  __shared__ Parts parts;
  WaitForPredecessor();
  const int group = threadIdx.x / kTilePacks;
  const int pack = threadIdx.x % kTilePacks;
  // Beyond the row's end its last columns, for nothing.
  const int column =
      min(blockIdx.x * kTileColumns + pack * kPack, p.hidden_size - kPack);
  float sums[kPack] = {};
  SumRows(p, static_cast<const T*>(p.down_proj) + column,
          blockIdx.y * kGroups + group, gridDim.y * kGroups, sums);
  parts[group][0][pack] = make_float4(sums[0], sums[1], sums[2], sums[3]);
  parts[group][1][pack] = make_float4(sums[4], sums[5], sums[6], sums[7]);
  __syncthreads();
  AddParts(p, parts);
}

}  // namespace

cudaError_t LaunchOneTokenDown(const SparseDownParams& params,
                               cudaStream_t stream) {
  const int tiles = (params.hidden_size + kTileColumns - 1) / kTileColumns;
  const int shares = std::max(1, params.device.sm_count / tiles);
  return DispatchElement(params.element, [&](auto zero) {
    return LaunchDependent(OneTokenDown<decltype(zero)>, dim3(tiles, shares),
                           kThreads, 0, params.device.dependent_launch, stream,
                           params);
  });
}

}  // namespace sparse_ffn::cuda
