// The FFN of one or two tokens in one kernel, for compute capability 9.0 and
// newer.
//
// As many blocks as multiprocessors. Their neurons are dealt out beforehand, so
// that sums are made in one order whatever the timing. Three kinds of warps:
//   gate warps take rows of gate_proj in turn, and leave their scores;
//   the list warp goes through the scores in order and orders the up and down
//   rows of active neurons into a ring;
//   sum warps take those in order: up product, then h times the down row onto
//   sums that they keep in registers, each thread some columns. Where the bits
//   are a batch's they may take two neurons at once.
// Only what is stored at the end has to wait for the launch before (the hidden
// states have places of their own, fused_bulk_fetch.cuh), and where rows are
// short enough a multiprocessor has room for two blocks: while those of one
// launch run out of work, those of the next are at theirs. A launch made ahead
// of its batch has the device for itself: it fills its rings, and waits there
// for the host's word.
#include <algorithm>

#include "kernels/cuda/dealt_neurons.cuh"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/fused_bulk_gate.cuh"
#include "kernels/cuda/fused_bulk_list.cuh"
#include "kernels/cuda/fused_bulk_sum.cuh"
#include "kernels/cuda/launch_fused.h"

namespace sparse_ffn::cuda {
namespace {

// How blocks are made for so many tokens and rows of up to kPacks packs for
// each sum thread. Two share a multiprocessor, beside those of LaunchFusedSum,
// as long as there is little enough to hold and to multiply; else, and where a
// launch is made ahead and so beside no other of these, one has it, with more
// warps. The numbers of warps are those that were fastest on an H200.
template <int kTokens, int kPacks, bool kAhead>
struct Form {
  static constexpr bool kSmall = kTokens * kPacks <= 4;
  static constexpr bool kShares = kSmall && !kAhead;
  static constexpr int kBlocks = kShares ? 2 : 1;
  static constexpr int kGateWarps = kShares ? 4
                                    : kSmall || (kTokens == 2 && kPacks <= 4)
                                        ? 8
                                    : kTokens == 2 ? 7
                                                   : 6;
  static constexpr int kThreads = (kFirstGateWarp + kGateWarps) * kWarp;
  static constexpr int kSharedBytes = (kShares ? 110 : 220) << 10;
};

template <typename T, DotOrder kOrder, int kTokens, int kPacks, bool kAhead>
__global__ void __launch_bounds__(Form<kTokens, kPacks, kAhead>::kThreads,
                                  Form<kTokens, kPacks, kAhead>::kBlocks)
    FusedBulk(const __grid_constant__ FusedBulkParams p) {
#if __CUDA_ARCH__ >= 900
  using In = Block<kTokens>;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int gate_warp = warp - kFirstGateWarp;
  const int rows = BlockRows(p);
  FirstRows<kTokens, kAhead> first_rows;
  HiddenStates<kOrder, kTokens, kPacks, kAhead> hidden;
  // Made ahead there is time: its rows do not get in the way of the batch that
  // is at work.
  if constexpr (kAhead) AwaitPredecessor();
  if (warp == kListWarp) {
    InitHead<kTokens>(p, rows);
  } else if (gate_warp >= 0) {
    if (threadIdx.x % kWarp == 0) first_rows.Start(p, gate_warp, rows);
  } else if (blockIdx.x == 0 && !kAhead) {
    hidden.StartFetch(p);
  }
  __syncthreads();
  if (warp == kListWarp) {
    RunListWarp<kTokens, kAhead>(p, rows);
  } else if (gate_warp >= 0) {
    RunGateWarp<T, kOrder>(p, first_rows, gate_warp, rows);
  } else {
    auto& head = In::head();
    auto* shared = reinterpret_cast<uint4*>(In::Hidden(p));
    if (blockIdx.x == 0) {
      hidden.Pass(p, head, shared);
    } else {
      hidden.Receive(p, head, shared);
    }
    Arrive(&head.hidden_full);
    RunSumWarp<T, kOrder, kTokens, kPacks>(p);
  }
#else
  __trap();  // Built for older devices alone, and run on a newer one.
#endif
}

// Of a block of any form. What has less for a block has not been tried.
constexpr int kMostSharedBytes = Form<1, 8, false>::kSharedBytes;
// On their way to a block before the hidden states: no more than keep the
// memory busy.
constexpr int kEarlyBytes = 32 << 10;
// An up and a down row, and the next up row.
constexpr int kMinListSlots = 3;
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

int SumPacks(int hidden_size) {
  return (hidden_size / kPack + kSumThreads - 1) / kSumThreads;
}

// Calls f with the kPacks of the kernel for so many tokens, as an integral
// constant.
template <int kTokens, typename F>
auto DispatchPacks(int hidden_size, F&& f) {
  const int packs = SumPacks(hidden_size);
  if (packs <= 2) return f(std::integral_constant<int, 2>{});
  if (packs <= 4) return f(std::integral_constant<int, 4>{});
  if constexpr (kTokens == 1) {
    if (packs > 5) return f(std::integral_constant<int, kMaxPacks<1>>{});
  }
  return f(std::integral_constant<int, 5>{});
}

// Calls f with the kOrder of a kernel, as an integral constant.
template <typename F>
auto DispatchOrder(bool as_batch, F&& f) {
  if (as_batch) {
    return f(std::integral_constant<DotOrder, DotOrder::kInOrder>{});
  }
  return f(std::integral_constant<DotOrder, DotOrder::kFast>{});
}

// Calls f with whether a launch is made ahead, as an integral constant.
template <typename F>
auto DispatchAhead(bool ahead, F&& f) {
  return ahead ? f(std::true_type()) : f(std::false_type());
}

// Of a block's shared memory.
struct Slots {
  int gate;
  int list;
};

// Of UpProducts, where there are any.
template <int kTokens, int kPacks>
int UpProductsBytes(bool as_batch) {
  return as_batch ? 2 * kNeuronsAtOnce<kTokens, kPacks> *
                        static_cast<int>(sizeof(UpProducts<kTokens, kPacks>))
                  : 0;
}

template <int kTokens, int kPacks, bool kAhead>
Slots BlockSlots(int hidden_size, bool as_batch) {
  using F = Form<kTokens, kPacks, kAhead>;
  const int rows = (F::kSharedBytes - kHeadBytes<kTokens> -
                    UpProductsBytes<kTokens, kPacks>(as_batch)) /
                   (2 * hidden_size);
  const int slots = rows - kTokens;
  // Two gate slots a gate warp and the rest for the list, or a third if that is
  // more. Made ahead about half: blocks with many active neurons then end last,
  // and no other launch is at work meanwhile.
  constexpr int kMostBesideOthers = 8;
  const int list =
      kAhead ? std::clamp(std::min(slots / 2 + 1, slots - F::kGateWarps),
                          kMinListSlots, kMaxListSlots)
             : std::clamp(std::max(slots / 3, slots - 2 * F::kGateWarps),
                          kMinListSlots, kMostBesideOthers);
  return {std::min(slots - list, kMaxGateSlots), list};
}

template <int kTokens, int kPacks, bool kAhead>
cudaError_t LaunchForm(const FusedTokensParams& params, cudaStream_t stream) {
  using F = Form<kTokens, kPacks, kAhead>;
  const int row_bytes = 2 * params.hidden_size;
  const Slots slots =
      BlockSlots<kTokens, kPacks, kAhead>(params.hidden_size, params.as_batch);
  const FusedBulkParams bulk = {
      params,     row_bytes,  F::kGateWarps,
      slots.gate, slots.list, std::max(kEarlyBytes / row_bytes, 1)};
  // At least so much that no third block fits, where a multiprocessor has
  // little more than a block can have: FusedBulkTakes counts on that.
  const int shared_bytes = std::max(
      kHeadBytes<kTokens> + (kTokens + slots.gate + slots.list) * row_bytes +
          UpProductsBytes<kTokens, kPacks>(params.as_batch),
      params.device.shared_bytes / 3);
  const int blocks = FusedBlocks(params.device, params.intermediate_size);
  return DispatchElement(params.element, [&](auto zero) {
    return DispatchOrder(params.as_batch, [&](auto order) {
      return LaunchDependent(
          FusedBulk<decltype(zero), order, kTokens, kPacks, kAhead>,
          dim3(blocks), F::kThreads, shared_bytes,
          params.device.dependent_launch, stream, bulk);
    });
  });
}

// As a batch, which has less room: all backends take the same sizes.
template <int kTokens, int kPacks, bool kAhead>
bool HasSlots(int hidden_size) {
  return BlockSlots<kTokens, kPacks, kAhead>(hidden_size, /*as_batch=*/true)
             .gate >= Form<kTokens, kPacks, kAhead>::kGateWarps;
}

// Lets a launch of each form have its shared memory.
template <DotOrder kOrder, int kTokens, int kPacks, typename T>
cudaError_t PrepareForms() {
  for (bool ahead : {false, true}) {
    const cudaError_t error = DispatchAhead(ahead, [](auto is_ahead) {
      return AllowShared(FusedBulk<T, kOrder, kTokens, kPacks, is_ahead>,
                         Form<kTokens, kPacks, is_ahead>::kSharedBytes);
    });
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace

int FusedBlocks(Device device, int intermediate_size) {
  return std::min(device.sm_count, intermediate_size);
}

bool FusedBulkTakes(Device device, int tokens, int hidden_size,
                    int intermediate_size) {
  if (!device.dependent_launch || device.shared_bytes < kMostSharedBytes ||
      tokens > kOneKernelTokens || !RowsAligned(hidden_size)) {
    return false;
  }
  const int blocks = FusedBlocks(device, intermediate_size);
  // When a launch has begun, the one kPassedSets before it, whose place its
  // hidden states take, has ended. A launch ends only after the one before it:
  // else all blocks of the kPassedSets - 1 between would be there still, and
  // there is room for two a multiprocessor.
  const bool enough = (kPassedSets - 1) * blocks >= 2 * device.sm_count;
  return enough && MostDealt(intermediate_size, blocks) <= kMaxRows &&
         DispatchTokens(tokens, [&](auto count) {
           return SumPacks(hidden_size) <= kMaxPacks<count> &&
                  DispatchPacks<count>(hidden_size, [&](auto packs) {
                    return HasSlots<count, packs, false>(hidden_size) &&
                           HasSlots<count, packs, true>(hidden_size);
                  });
         });
}

cudaError_t PrepareFusedBulk(Element element, int tokens, int hidden_size,
                             bool as_batch) {
  return DispatchTokens(tokens, [&](auto count) {
    return DispatchPacks<count>(hidden_size, [&](auto packs) {
      return DispatchElement(element, [&](auto zero) {
        return DispatchOrder(as_batch, [&](auto order) {
          return PrepareForms<order, count, packs, decltype(zero)>();
        });
      });
    });
  });
}

cudaError_t LaunchFusedBulk(const FusedTokensParams& params,
                            cudaStream_t stream) {
  return DispatchTokens(params.tokens, [&](auto count) {
    return DispatchPacks<count>(params.hidden_size, [&](auto packs) {
      return DispatchAhead(params.ahead.word != nullptr, [&](auto ahead) {
        return LaunchForm<count, packs, ahead>(params, stream);
      });
    });
  });
}

}  // namespace sparse_ffn::cuda
