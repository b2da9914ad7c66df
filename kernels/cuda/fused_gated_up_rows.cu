// Steps 1 and 2 of a batch in one kernel, for compute capability 9.0 and newer.
// A block's neurons are dealt out beforehand, as in fused_gated_up.cu; here the
// hidden states stay in registers and whole rows of weights stream past them,
// so that memory is read in long pieces and the L2 for hardly anything else.
// Dot warps share the columns of eight rows at a time, a sum warp adds up what
// they find, and a copy warp keeps the rows coming.
//
// Registers hold the hidden states of 16 tokens. Of more, the first of two
// blocks has 16 and the second the rest; both take the rows of both, and their
// sum warps tell each other what is active.
#include <algorithm>
#include <type_traits>

#include "kernels/cuda/clear.cuh"
#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/fused_gated_up_rows_block.cuh"
#include "kernels/cuda/fused_gated_up_rows_copy.cuh"
#include "kernels/cuda/fused_gated_up_rows_dot.cuh"
#include "kernels/cuda/fused_gated_up_rows_sum.cuh"
#include "kernels/cuda/launch_fused.h"

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
  block.Begin();
  if (warp == S::kCopyWarp) {
    RunCopyWarp(block);
  } else {
    AwaitPredecessor();
    if (warp == S::kSumWarp) {
      SumWarp<T, S> sums(block);
      if (!block.WasLeft()) sums.Run();
      sums.End();
    } else {
      DotWarp<T, S, kChunks> dots(block, warp);
      dots.LoadHidden();
      ClearForBatch<S::kDotThreads>(p, p.output_size);
      if (!block.WasLeft()) dots.Run();
    }
  }
#else
  __trap();  // Built for older devices alone, and run on a newer one.
#endif
}

// Chunks of a share, of which the registers of a dot warp hold those of eight
// tokens.
constexpr int kChunkForms[] = {7, 19, 23};
constexpr int kMaxRowBytes = kChunkForms[2] * kDotSweepBytes;
// Shorter rows come too fast for what the blocks of a cluster have to say.
constexpr int kMinClusterRowBytes = 4 << 10;
// One tile on its way while another is multiplied, and two where else
// fused_gated_up.cu is faster: it pays for the order.
template <typename S>
constexpr int MinStages(bool ordered) {
  return S::kBlocks == 1 || ordered ? 2 : 3;
}

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
  switch (BatchFormTokens(tokens)) {
    case kBatchForms[0]:
      return ordered ? with_shape(RowsShape<1, kDotShares>())
                     : with_shape(RowsShape<1, 2 * kDotShares>());
    case kBatchForms[1]:
      return with_shape(RowsShape<2, kDotShares>());
    default:
      return with_shape(RowsShape<2, kDotShares, 2>());
  }
}

// Most rows of a block or cluster.
template <typename S>
int MostRows(int neurons, int blocks) {
  return S::kBlocks * MostDealt(neurons, blocks);
}

template <typename S>
int Stages(Device device, int hidden_size, int most_rows) {
  const int bytes = device.shared_bytes - StagesAt<S>(most_rows);
  return std::min(bytes / (kTileRows * DotRowStride(2 * hidden_size)),
                  kMaxStages);
}

}  // namespace

bool FusedGatedUpRowsTakes(Device device, int tokens, int hidden_size,
                           int intermediate_size, bool ordered) {
  const int row_bytes = 2 * hidden_size;
  const int blocks = FusedBlocks(device, intermediate_size);
  if (!device.dependent_launch || tokens > kBatchFormTokens ||
      !RowsAligned(hidden_size) || row_bytes > kMaxRowBytes) {
    return false;
  }
  bool fits = false;
  DispatchForm(tokens, hidden_size, ordered, [&](auto shape, auto /*chunks*/) {
    using S = decltype(shape);
    const int rows = MostRows<S>(intermediate_size, blocks);
    fits = rows <= kMaxRows && blocks % S::kBlocks == 0 &&
           (S::kBlocks == 1 || row_bytes >= kMinClusterRowBytes) &&
           Stages<S>(device, hidden_size, rows) >= MinStages<S>(ordered);
    return cudaSuccess;
  });
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
  const int stride = DotRowStride(2 * params.hidden_size);
  return DispatchForm(
      params.tokens, params.hidden_size, params.block_counts != nullptr,
      [&](auto shape, auto chunks) {
        using S = decltype(shape);
        const int most_rows = MostRows<S>(params.intermediate_size, blocks);
        const int stages =
            Stages<S>(params.device, params.hidden_size, most_rows);
        const FusedGatedUpRowsParams rows = {params, 2 * params.hidden_size,
                                             stride, stages, most_rows};
        return DispatchElement(params.element, [&](auto zero) {
          return LaunchDependent(
              FusedGatedUpRows<decltype(zero), S, chunks>, dim3(blocks),
              S::kThreads, StagesAt<S>(most_rows) + stages * kTileRows * stride,
              params.device.dependent_launch, stream, rows, S::kBlocks);
        });
      });
}

}  // namespace sparse_ffn::cuda
