// The FFN of one or two tokens in one kernel, for compute capability 9.0 and
// newer.
//
// A block a multiprocessor. Its neurons are dealt out beforehand, so that sums
// are made in one order whatever the timing. Three kinds of warps:
//   gate warps take rows of gate_proj in turn, and leave their scores: each its
//     first through a slot of its own, then those that it ordered ahead, then
//     the rest through its own slot again;
//   the list warp goes through the scores in order and orders the up and down
//     rows of active neurons into a ring;
//   sum warps take those in order: up product, then h times the down row onto
//     sums that they keep in registers, each thread some columns.
// As blocks end, those of the next launch take their place and fill their
// shared memory with rows while the rest ends and the parts are added up.
#include <algorithm>

#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/fused_bulk_gate.cuh"
#include "kernels/cuda/fused_bulk_list.cuh"
#include "kernels/cuda/fused_bulk_sum.cuh"

namespace sparse_ffn::cuda {
namespace {

// kPacks: most packs of a row that fall to a sum thread.
template <typename T, int kTokens, int kPacks>
__global__ void __launch_bounds__(kThreads, 1)
    FusedBulk(const __grid_constant__ FusedBulkParams p) {
#if __CUDA_ARCH__ >= 900
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int rows = BlockRows(p);
  AllowSuccessor();
  GateOrders<kTokens> orders;
  if (warp < kGateWarps) {
    if (threadIdx.x % kWarp == 0) orders.Start(p, warp, rows);
  } else if (warp == kListWarp) {
    InitHead<kTokens>(p, rows);
  }
  __syncthreads();
  // Gate warps read what never changes, and hidden states from the list warp.
  if (warp >= kGateWarps) AwaitPredecessor();
  if (warp < kGateWarps) {
    RunGateWarp<T>(p, orders, warp, rows);
  } else if (warp == kListWarp) {
    RunListWarp<kTokens>(p, rows);
  } else {
    RunSumWarp<T, kTokens, kPacks>(p);
  }
#else
  __trap();  // Built for older devices alone, and run on a newer one.
#endif
}

// Shared memory of a block, beside those of LaunchFusedSum on a multiprocessor.
constexpr int kSharedBytes = 220 << 10;
// An up and a down row, and one that is still to come.
constexpr int kMinListSlots = 3;
// On their way to a multiprocessor before the hidden states, for each token: no
// more than keep the memory busy.
constexpr int kAheadBytes = 40 << 10;
// What the registers of a sum thread hold.
template <int kTokens>
constexpr int kMaxPacks = kTokens == 1 ? 8 : 5;

// Calls f with `tokens` as an integral constant.
template <typename F>
auto DispatchTokens(int tokens, F&& f) {
  static_assert(kOneKernelTokens == 2);
  return tokens == 1 ? f(std::integral_constant<int, 1>{})
                     : f(std::integral_constant<int, 2>{});
}

template <int kTokens>
int AheadSlots(int hidden_size) {
  const int rows = (kSharedBytes - kHeadBytes<kTokens>) / (2 * hidden_size);
  return std::min(rows - kTokens - kGateWarps, kMaxAheadSlots);
}

int SumPacks(int hidden_size) {
  return (hidden_size / kPack + kSumThreads - 1) / kSumThreads;
}

// Calls f with the kernel for the type and the size.
template <int kTokens, typename F>
cudaError_t DispatchKernel(Element element, int hidden_size, F&& f) {
  return DispatchElement(element, [&](auto zero) {
    using T = decltype(zero);
    const int packs = SumPacks(hidden_size);
    if (packs <= 2) return f(FusedBulk<T, kTokens, 2>);
    if (packs <= 4) return f(FusedBulk<T, kTokens, 4>);
    if (kTokens > 1 || packs <= 5) return f(FusedBulk<T, kTokens, 5>);
    return f(FusedBulk<T, 1, kMaxPacks<1>>);
  });
}

}  // namespace

int FusedBlocks(Device device, int intermediate_size) {
  return std::min(device.sm_count, intermediate_size);
}

bool FusedBulkTakes(Device device, int tokens, int hidden_size,
                    int intermediate_size) {
  if (!device.dependent_launch || device.shared_bytes < kSharedBytes ||
      tokens > kOneKernelTokens || !RowsAligned(hidden_size)) {
    return false;
  }
  const int blocks = FusedBlocks(device, intermediate_size);
  return (intermediate_size + blocks - 1) / blocks <= kMaxRows &&
         DispatchTokens(tokens, [&](auto count) {
           return SumPacks(hidden_size) <= kMaxPacks<count> &&
                  AheadSlots<count>(hidden_size) >= kMinListSlots;
         });
}

cudaError_t PrepareFusedBulk(Element element, int tokens, int hidden_size) {
  return DispatchTokens(tokens, [&](auto count) {
    return DispatchKernel<count>(element, hidden_size, [](auto kernel) {
      return AllowShared(kernel, kSharedBytes);
    });
  });
}

cudaError_t LaunchFusedBulk(const FusedTokensParams& params,
                            cudaStream_t stream) {
  return DispatchTokens(params.tokens, [&](auto count) {
    const int row_bytes = 2 * params.hidden_size;
    const int ahead_slots = AheadSlots<count>(params.hidden_size);
    const FusedBulkParams bulk = {
        params, row_bytes, std::min(ahead_slots, kMaxListSlots), ahead_slots,
        std::clamp(count * kAheadBytes / row_bytes, 1, kGateWarps)};
    const int shared_bytes =
        kHeadBytes<count> + (count + ahead_slots + kGateWarps) * row_bytes;
    const int blocks = FusedBlocks(params.device, params.intermediate_size);
    return DispatchKernel<count>(
        params.element, params.hidden_size, [&](auto kernel) {
          return LaunchDependent(kernel, dim3(blocks), kThreads, shared_bytes,
                                 params.device.dependent_launch, stream, bulk);
        });
  });
}

}  // namespace sparse_ffn::cuda
