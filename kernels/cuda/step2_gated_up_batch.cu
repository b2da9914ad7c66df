#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace sparse_ffn::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kRows = 16;
constexpr int kTokenTile = 8;
// A lane loads kPack neighbouring columns of a row: two products' worth, in
// an order of columns that both operands share.
constexpr int kStepColumns = 4 * kPack;
constexpr int kSteps = 4;  // In flight at once.
constexpr int kBlocksPerSm = 3;

template <typename T>
__device__ Pack<T> LoadPack(const T* row, int column, int columns) {
  Pack<T> pack;
  pack.bits = make_uint4(0, 0, 0, 0);
  if (column < columns) pack = LoadWeights(row + column);
  return pack;
}

// This warp's share of rows [kRows] · x [tokens]: every kWarps-th group of
// columns.
template <typename T, int kTiles>
__device__ void Products(const GatedUpParams& p, int first, int count,
                         float (&sums)[kTiles][4]) {
  const int lane = threadIdx.x % kWarp;
  const int group = lane / 4;
  const int pair = lane % 4;
  const auto* up = static_cast<const T*>(p.up_proj);
  const auto* x = static_cast<const T*>(p.hidden_states);
  // Beyond the end of the list: any row, its sums are not used.
  const T* row0 =
      up + static_cast<size_t>(p.union_list[min(first + group, count - 1)]) *
               p.hidden_size;
  const T* row1 = up + static_cast<size_t>(
                           p.union_list[min(first + group + 8, count - 1)]) *
                           p.hidden_size;
  constexpr int kColumns = kSteps * kStepColumns;
  for (int c0 = threadIdx.x / kWarp * kColumns; c0 < p.hidden_size;
       c0 += kWarps * kColumns) {
    Pack<T> w0[kSteps];
    Pack<T> w1[kSteps];
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const int column = c0 + s * kStepColumns + pair * kPack;
      w0[s] = LoadPack(row0, column, p.hidden_size);
      w1[s] = LoadPack(row1, column, p.hidden_size);
    }
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const int column = c0 + s * kStepColumns + pair * kPack;
      const uint32_t low[4] = {w0[s].bits.x, w1[s].bits.x, w0[s].bits.y,
                               w1[s].bits.y};
      const uint32_t high[4] = {w0[s].bits.z, w1[s].bits.z, w0[s].bits.w,
                                w1[s].bits.w};
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const int token = tile * kTokenTile + group;
        uint4 v = make_uint4(0, 0, 0, 0);
        if (token < p.tokens && column < p.hidden_size) {
          v = LoadHidden(x + static_cast<size_t>(token) * p.hidden_size +
                         column)
                  .bits;
        }
        MultiplyAdd(sums[tile], low, {v.x, v.y}, T());
        MultiplyAdd(sums[tile], high, {v.z, v.w}, T());
      }
    }
  }
}

// h as two 2-byte floats whose sum is h to 16 bits or more; 0 for an inactive
// token and beyond the end of the list, up to where the down product reads.
template <typename T>
__device__ void StoreGated(const GatedUpParams& p, int i, int count, int token,
                           float up) {
  float h = 0;
  if (i < count) {
    const float score =
        p.scores[static_cast<size_t>(token) * p.intermediate_size +
                 p.union_list[i]];
    if (p.clamp_up && up <= 0) up = 0;
    if (score != 0) h = score * up;
  }
  const T high = T(h);
  const size_t at = static_cast<size_t>(token) * p.split_stride + i;
  static_cast<T*>(p.gated_high)[at] = high;
  static_cast<T*>(p.gated_low)[at] = T(h - ToFloat(high));
}

// A block takes kRows listed neurons at a time; its warps share the columns.
template <typename T, int kTiles>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    GatedUpBatch(const GatedUpParams p) {
  constexpr int kTokens = kTiles * kTokenTile;
  __shared__ float warp_sums[kWarps][kRows][kTokens];
  WaitForPredecessor();
  const int count = *p.union_count;
  const int lane = threadIdx.x % kWarp;
  for (int first = blockIdx.x * kRows; first < count;
       first += gridDim.x * kRows) {
    float sums[kTiles][4] = {};
    Products<T, kTiles>(p, first, count, sums);
    auto& mine = warp_sums[threadIdx.x / kWarp];
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const int token = tile * kTokenTile + 2 * (lane % 4);
      mine[lane / 4][token] = sums[tile][0];
      mine[lane / 4][token + 1] = sums[tile][1];
      mine[lane / 4 + 8][token] = sums[tile][2];
      mine[lane / 4 + 8][token + 1] = sums[tile][3];
    }
    __syncthreads();
    for (int at = threadIdx.x; at < kRows * kTokens; at += kThreads) {
      const int token = at / kRows;
      if (token >= p.tokens) break;
      float up = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) up += warp_sums[w][at % kRows][token];
      StoreGated<T>(p, first + at % kRows, count, token, up);
    }
    __syncthreads();
  }
}

}  // namespace

cudaError_t LaunchGatedUpBatch(const GatedUpParams& params,
                               cudaStream_t stream) {
  return DispatchElement(params.element, [&](auto element) {
    using T = decltype(element);
    const auto kernel = params.tokens <= 8    ? GatedUpBatch<T, 1>
                        : params.tokens <= 16 ? GatedUpBatch<T, 2>
                                              : GatedUpBatch<T, 4>;
    return LaunchDependent(kernel, dim3(params.device.sm_count * kBlocksPerSm),
                           kThreads, 0, params.device.dependent_launch, stream,
                           params);
  });
}

}  // namespace sparse_ffn::cuda
