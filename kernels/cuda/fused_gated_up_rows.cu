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

template <typename T, typename S, int kChunks>
__global__ void __launch_bounds__(S::kThreads, 1)
    FusedGatedUpRows(const __grid_constant__ FusedGatedUpRowsParams p) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) std::byte shared[];
  const RowsBlock<S> block(p, shared);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  AllowSuccessor();
  block.InitBarriers();
  __syncthreads();
  if (warp == S::kCopyWarp) {
    RunCopyWarp(block);
    return;
  }
  AwaitPredecessor();
  if (warp == S::kSumWarp) {
    SumWarp<T, S>(block).Run();
  } else {
    DotWarp<T, S, kChunks> dots(block, warp);
    dots.LoadHidden();
    ClearForBatch<S::kDotThreads>(p, p.output_size);
    dots.Run();
  }
#else
  __trap();  // Built for older devices alone, and run on a newer one.
#endif
}

// Chunks of a share, of which the registers of a dot warp hold those of eight
// tokens.
constexpr int kChunkForms[] = {7, 19, 23};
constexpr int kMaxRowBytes = kChunkForms[2] * kDotSweepBytes;
constexpr int kMostTokens = kBatchForms[1];
// One tile on its way while another is multiplied.
constexpr int kMinStages = 2;

// Calls f with the shape of the kernel for such a batch and the chunks of a
// share of its rows, as an integral constant.
template <typename F>
cudaError_t DispatchForm(int tokens, int hidden_size, bool ordered, F&& f) {
  const int chunks = (2 * hidden_size + kDotSweepBytes - 1) / kDotSweepBytes;
  const auto with_shape = [&](auto shape) {
    // Into which each share of dot_order.cuh is split.
    constexpr int kParts = decltype(shape)::kShares / kDotShares;
    const auto with_chunks = [&](auto form) {
      constexpr int kChunks = (kChunkForms[form] + kParts - 1) / kParts;
      return f(shape, std::integral_constant<int, kChunks>{});
    };
    if (chunks <= kChunkForms[0]) {
      return with_chunks(std::integral_constant<int, 0>{});
    }
    if (chunks <= kChunkForms[1]) {
      return with_chunks(std::integral_constant<int, 1>{});
    }
    return with_chunks(std::integral_constant<int, 2>{});
  };
  static_assert(kBatchForms[0] == 8 && kMostTokens == 16);
  if (BatchFormTokens(tokens) == kMostTokens) {
    return with_shape(RowsShape<2, kDotShares>());
  }
  return ordered ? with_shape(RowsShape<1, kDotShares>())
                 : with_shape(RowsShape<1, 2 * kDotShares>());
}

template <typename S>
int Stages(Device device, int hidden_size, int most_rows) {
  const int bytes = device.shared_bytes - StagesAt<S>(most_rows);
  return std::min(bytes / (kTileRows * DotRowStride(2 * hidden_size)),
                  kMaxStages);
}

}  // namespace

bool FusedGatedUpRowsTakes(Device device, int tokens, int hidden_size,
                           int intermediate_size) {
  const int rows =
      MostDealt(intermediate_size, FusedBlocks(device, intermediate_size));
  if (!device.dependent_launch || tokens > kMostTokens ||
      !RowsAligned(hidden_size) || 2 * hidden_size > kMaxRowBytes ||
      rows > kMaxRows) {
    return false;
  }
  // In order and not: one limit for both.
  bool fits = true;
  for (bool ordered : {false, true}) {
    DispatchForm(
        tokens, hidden_size, ordered, [&](auto shape, auto /*chunks*/) {
          using S = decltype(shape);
          fits = fits && Stages<S>(device, hidden_size, rows) >= kMinStages;
          return cudaSuccess;
        });
  }
  return fits;
}

cudaError_t PrepareFusedGatedUpRows(Element element, Device device, int tokens,
                                    int hidden_size, bool ordered) {
  return DispatchForm(
      tokens, hidden_size, ordered, [&](auto shape, auto chunks) {
        using S = decltype(shape);
        return DispatchElement(element, [&](auto zero) {
          return AllowShared(FusedGatedUpRows<decltype(zero), S, chunks>,
                             device.shared_bytes);
        });
      });
}

cudaError_t LaunchFusedGatedUpRows(const FusedGatedUpParams& params,
                                   cudaStream_t stream) {
  const int blocks = FusedBlocks(params.device, params.intermediate_size);
  const int most_rows = MostDealt(params.intermediate_size, blocks);
  const int stride = DotRowStride(2 * params.hidden_size);
  return DispatchForm(
      params.tokens, params.hidden_size, params.block_counts != nullptr,
      [&](auto shape, auto chunks) {
        using S = decltype(shape);
        const int stages =
            Stages<S>(params.device, params.hidden_size, most_rows);
        const FusedGatedUpRowsParams rows = {params, 2 * params.hidden_size,
                                             stride, stages, most_rows};
        return DispatchElement(params.element, [&](auto zero) {
          return LaunchDependent(
              FusedGatedUpRows<decltype(zero), S, chunks>, dim3(blocks),
              S::kThreads, StagesAt<S>(most_rows) + stages * kTileRows * stride,
              params.device.dependent_launch, stream, rows);
        });
      });
}

}  // namespace sparse_ffn::cuda
