// Steps 1 and 2 of up to 16 tokens in one kernel, for compute capability 9.0
// and newer. A block's neurons are dealt out beforehand, as in
// fused_gated_up.cu; here the hidden states stay in registers and whole rows of
// weights stream past them, so that memory is read in long pieces and the L2
// for hardly anything else. Dot warps share the columns of eight rows at a
// time, a sum warp adds up what they find, and a copy warp keeps the rows
// coming.
#include <algorithm>
#include <type_traits>

#include "kernels/cuda/clear.cuh"
#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/fused_gated_up_rows_block.cuh"
#include "kernels/cuda/fused_gated_up_rows_copy.cuh"
#include "kernels/cuda/fused_gated_up_rows_dot.cuh"
#include "kernels/cuda/fused_gated_up_rows_sum.cuh"

namespace sparse_ffn::cuda {
namespace {

template <typename T, int kTokenTiles, int kChunks>
__global__ void __launch_bounds__(kBlockThreads, 1)
    FusedGatedUpRows(const __grid_constant__ FusedGatedUpRowsParams p) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) std::byte shared[];
  const RowsBlock<kTokenTiles> block(p, shared);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  AllowSuccessor();
  block.InitBarriers();
  __syncthreads();
  if (warp == kCopyWarp) {
    RunCopyWarp(block);
    return;
  }
  AwaitPredecessor();
  if (warp == kSumWarp) {
    SumWarp<T, kTokenTiles>(block).Run();
  } else {
    DotWarp<T, kTokenTiles, kChunks> dots(block, warp);
    dots.LoadHidden();
    ClearForBatch<kDotThreads>(p, p.output_size);
    dots.Run();
  }
#else
  __trap();  // Built for older devices alone, and run on a newer one.
#endif
}

// What the registers of a dot warp hold.
constexpr int kMaxChunks = 12;
constexpr int kMostTokens = kBatchForms[1];
// One tile on its way while another is multiplied.
constexpr int kMinStages = 2;

// Calls f with the token tiles and the chunks of a warp of the kernel for such
// a batch, as integral constants.
template <typename F>
cudaError_t DispatchChunks(int tokens, int hidden_size, F&& f) {
  const int chunks = (2 * hidden_size + kSweepBytes - 1) / kSweepBytes;
  const auto with_tiles = [&](auto tiles) {
    if (chunks <= 4) return f(tiles, std::integral_constant<int, 4>{});
    if (chunks <= 10) return f(tiles, std::integral_constant<int, 10>{});
    return f(tiles, std::integral_constant<int, kMaxChunks>{});
  };
  return BatchFormTokens(tokens) == kBatchForms[0]
             ? with_tiles(std::integral_constant<int, kBatchForms[0] / 8>{})
             : with_tiles(std::integral_constant<int, kMostTokens / 8>{});
}

// Padded, so that chunks of two rows side by side fall on different banks.
int RowStride(int hidden_size) {
  constexpr int kBankBytes = 32 * 4;  // Of all banks.
  static_assert(2 * kChunkBytes == kBankBytes);
  return (2 * hidden_size + kBankBytes - 1) / kBankBytes * kBankBytes +
         kChunkBytes;
}

template <int kTokenTiles>
int Stages(Device device, int hidden_size, int most_rows) {
  const int bytes = device.shared_bytes - StagesAt<kTokenTiles>(most_rows);
  return std::min(bytes / (kTileRows * RowStride(hidden_size)), kMaxStages);
}

}  // namespace

bool FusedGatedUpRowsTakes(Device device, int tokens, int hidden_size,
                           int intermediate_size) {
  const int rows =
      MostDealt(intermediate_size, FusedBlocks(device, intermediate_size));
  if (!device.dependent_launch || tokens > kMostTokens ||
      !RowsAligned(hidden_size) || 2 * hidden_size > kMaxChunks * kSweepBytes ||
      rows > kMaxRows) {
    return false;
  }
  bool fits = false;
  DispatchChunks(tokens, hidden_size, [&](auto tiles, auto /*chunks*/) {
    fits = Stages<tiles>(device, hidden_size, rows) >= kMinStages;
    return cudaSuccess;
  });
  return fits;
}

cudaError_t PrepareFusedGatedUpRows(Element element, Device device, int tokens,
                                    int hidden_size) {
  return DispatchChunks(tokens, hidden_size, [&](auto tiles, auto chunks) {
    return DispatchElement(element, [&](auto zero) {
      return AllowShared(FusedGatedUpRows<decltype(zero), tiles, chunks>,
                         device.shared_bytes);
    });
  });
}

cudaError_t LaunchFusedGatedUpRows(const FusedGatedUpParams& params,
                                   cudaStream_t stream) {
  const int blocks = FusedBlocks(params.device, params.intermediate_size);
  const int most_rows = MostDealt(params.intermediate_size, blocks);
  const int stride = RowStride(params.hidden_size);
  return DispatchChunks(
      params.tokens, params.hidden_size, [&](auto tiles, auto chunks) {
        const int stages =
            Stages<tiles>(params.device, params.hidden_size, most_rows);
        const FusedGatedUpRowsParams rows = {params, 2 * params.hidden_size,
                                             stride, stages, most_rows};
        return DispatchElement(params.element, [&](auto zero) {
          return LaunchDependent(
              FusedGatedUpRows<decltype(zero), tiles, chunks>, dim3(blocks),
              kBlockThreads,
              StagesAt<tiles>(most_rows) + stages * kTileRows * stride,
              params.device.dependent_launch, stream, rows);
        });
      });
}

}  // namespace sparse_ffn::cuda
