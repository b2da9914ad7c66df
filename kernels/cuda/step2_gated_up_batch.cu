#include "kernels/cuda/batch_products.cuh"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/launch_steps.h"
#include "kernels/cuda/split_gated.cuh"

namespace sparse_ffn::cuda {
namespace {

constexpr int kBlocksPerSm = 2;
// The ring: two blocks fit on a multiprocessor of 9.0, and one in the 99 KB of
// 8.6 and 8.9. On 8.0 one block waits for the other.
using Shape = BatchShape<3, 1, 8, (90 << 10)>;

template <typename T, int kTokenTiles>
using Batch = BatchProducts<T, Shape, kTokenTiles>;

// A block takes a piece of the list, kRows neurons at a time.
template <typename T, int kTokenTiles>
__global__ void __launch_bounds__(Batch<T, kTokenTiles>::kThreads, kBlocksPerSm)
    GatedUpBatch(const __grid_constant__ GatedUpParams p) {
  constexpr int kRows = Batch<T, kTokenTiles>::kRows;
  constexpr int kTokens = Batch<T, kTokenTiles>::kTokens;
  extern __shared__ __align__(16) std::byte shared[];
  Batch<T, kTokenTiles> batch(
      *reinterpret_cast<typename Batch<T, kTokenTiles>::Shared*>(shared),
      p.hidden_states, p.tokens, p.hidden_size);
  WaitForPredecessor();
  const long long count = *p.union_count;
  const auto piece = [count](unsigned block) {
    return static_cast<int>(count * block / gridDim.x);
  };
  const int end = piece(blockIdx.x + 1);
  for (int first = piece(blockIdx.x); first < end; first += kRows) {
    const int* list = p.union_list + first;
    const int rows = min(kRows, end - first);
    batch.Start(p.up_proj, rows, [list](int row) { return list[row]; });
    const auto& products = batch.Finish();
    for (int i = threadIdx.x; i < rows * kTokens; i += batch.kThreads) {
      const int row = i / kTokens;
      const int token = i % kTokens;
      float h = 0;
      if (token < p.tokens) {
        const float score =
            p.scores[static_cast<size_t>(token) * p.intermediate_size +
                     list[row]];
        float up = products[row][token];
        if (p.clamp_up && up <= 0) up = 0;
        if (score != 0) h = score * up;
      }
      StoreGated<T>(p.gated_high, p.gated_low,
                    static_cast<size_t>(first + row) * kTokens + token, h);
    }
    __syncthreads();
  }
}

template <typename T, int kTokenTiles>
constexpr int kSharedBytes =
    static_cast<int>(sizeof(typename Batch<T, kTokenTiles>::Shared));
static_assert(kSharedBytes<__half, 1> <= 99 << 10 &&
              kSharedBytes<__half, 2> <= 99 << 10 &&
              kSharedBytes<__half, 4> <= 99 << 10);

}  // namespace

cudaError_t PrepareGatedUpBatch(Element element) {
  return ForEachTokenTiles([element](auto token_tiles) {
    return DispatchElement(element, [](auto zero) {
      using T = decltype(zero);
      constexpr int kTiles = decltype(token_tiles)::value;
      return AllowShared(GatedUpBatch<T, kTiles>, kSharedBytes<T, kTiles>);
    });
  });
}

cudaError_t LaunchGatedUpBatch(const GatedUpParams& params,
                               cudaStream_t stream) {
  return DispatchElement(params.element, [&](auto zero) {
    return DispatchTokenTiles(params.tokens, [&](auto token_tiles) {
      using T = decltype(zero);
      constexpr int kTiles = decltype(token_tiles)::value;
      return LaunchDependent(
          GatedUpBatch<T, kTiles>, dim3(params.device.sm_count * kBlocksPerSm),
          Batch<T, kTiles>::kThreads, kSharedBytes<T, kTiles>,
          params.device.dependent_launch, stream, params);
    });
  });
}

}  // namespace sparse_ffn::cuda
