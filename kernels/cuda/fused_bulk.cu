// The FFN of one token in one kernel, for compute capability 9.0 and newer.
//
// A block a multiprocessor. Its neurons are dealt out beforehand, so that sums
// are made in one order whatever the timing. Three kinds of warps:
//   gate warps take rows of gate_proj in turn, each through a slot of its own,
//     and leave their scores;
//   the list warp goes through the scores in order and orders the up and down
//     rows of active neurons into a ring;
//   sum warps take those in order: up product, then h times the down row onto
//     sums that they keep in registers, each thread some columns.
// As blocks end, those of the next launch take their place and fetch their
// first rows while the rest ends and the parts are added up.
#include <algorithm>
#include <cstddef>

#include "kernels/cuda/bulk_copy.cuh"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace sparse_ffn::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kGateWarps = 8;
constexpr int kSumWarps = 4;
constexpr int kListWarp = kGateWarps + kSumWarps;
constexpr int kThreads = (kListWarp + 1) * kWarp;
constexpr int kSumThreads = kSumWarps * kWarp;

constexpr int kMaxListSlots = 6;  // Rows in the ring of the list warp.
constexpr int kMaxRows = 512;     // Of gate_proj, in a block.
// A round is one row of each gate warp.
constexpr int kMaxRounds = kMaxRows / kGateWarps;
constexpr int kMaxPacks = 8;  // Of a row, that a sum thread can have.

struct FusedBulkParams : FusedTokenParams {
  int row_bytes;
  int list_slots;
};

// Shared memory: this, then the hidden state, the list ring and the gate slots.
struct Head {
  uint64_t gate_full[kGateWarps];
  uint64_t first_full[kGateWarps];
  uint64_t hidden_full;
  uint64_t list_full[kMaxListSlots];   // The row's, and what goes with it.
  uint64_t list_empty[kMaxListSlots];  // After its first row, of gate_proj.
  uint64_t round_done[kMaxRounds];
  float scores[kMaxRows];
  float list_scores[kMaxListSlots];  // Of slots that hold an up row.
  int list_ends[kMaxListSlots];
  float up_sums[2][kSumWarps];
};
constexpr int kHeadBytes = (sizeof(Head) + 127) / 128 * 128;

#if __CUDA_ARCH__ >= 900

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kPackBytes = 16;

__device__ Head& SharedHead() {
  extern __shared__ __align__(128) std::byte shared[];
  return *reinterpret_cast<Head*>(shared);
}
__device__ std::byte* SharedRow(const FusedBulkParams& p, int i) {
  return reinterpret_cast<std::byte*>(&SharedHead()) + kHeadBytes +
         i * p.row_bytes;
}
__device__ std::byte* SharedHidden(const FusedBulkParams& p) {
  return SharedRow(p, 0);
}
__device__ std::byte* ListSlot(const FusedBulkParams& p, int slot) {
  return SharedRow(p, 1 + slot);
}
__device__ std::byte* GateSlot(const FusedBulkParams& p, int warp) {
  return SharedRow(p, 1 + p.list_slots + warp);
}

// A place in a ring, and the parity of its next phase.
struct RingPlace {
  int slot = 0;
  uint32_t parity = 0;

  __device__ void Advance(int slots) {
    if (++slot < slots) return;
    slot = 0;
    parity ^= 1;
  }
};

// Rows of this block: blockIdx.x + i * gridDim.x for i below this.
__device__ int BlockRows(const FusedBulkParams& p) {
  return (p.intermediate_size - static_cast<int>(blockIdx.x) +
          static_cast<int>(gridDim.x) - 1) /
         static_cast<int>(gridDim.x);
}
__device__ const std::byte* Row(const void* matrix, const FusedBulkParams& p,
                                int i) {
  return static_cast<const std::byte*>(matrix) +
         (static_cast<size_t>(i) * gridDim.x + blockIdx.x) * p.row_bytes;
}

// The dot product of two rows by a warp, on the tensor cores. Lanes 4 g to
// 4 g + 3 give their elements as row g of one factor and column g of the other,
// so that the diagonal holds the products that belong together.
template <typename T, int kChains>
struct WarpDot {
  float sums[kChains][4] = {};

  __device__ void Add(const Pack<T>& a, const Pack<T>& b, int chain) {
    const uint32_t a_low[4] = {a.bits.x, 0, a.bits.y, 0};
    const uint32_t b_low[2] = {b.bits.x, b.bits.y};
    MultiplyAdd(sums[chain], a_low, b_low, T());
    const uint32_t a_high[4] = {a.bits.z, 0, a.bits.w, 0};
    const uint32_t b_high[2] = {b.bits.z, b.bits.w};
    MultiplyAdd(sums[chain], a_high, b_high, T());
  }
  // The sum of all that were added, in all lanes.
  __device__ float Sum() const {
    const int lane = threadIdx.x % kWarp;
    const int group = lane / 4;
    float even = 0;
    float odd = 0;
#pragma unroll
    for (int k = 0; k < kChains; ++k) {
      even += sums[k][0];
      odd += sums[k][1];
    }
    const float diagonal = group % 2 == 0 ? even : odd;
    return SumOverWarp(lane % 4 == group / 2 ? diagonal : 0);
  }
};

// row · x, in all lanes.
template <typename T>
__device__ float DotRow(const std::byte* row, const std::byte* x, int packs) {
  constexpr int kBatch = 4;  // Packs in flight in a lane.
  constexpr int kChains = 4;
  const auto* w = reinterpret_cast<const Pack<T>*>(row);
  const auto* v = reinterpret_cast<const Pack<T>*>(x);
  const int lane = threadIdx.x % kWarp;
  WarpDot<T, kChains> dot;
  for (int first = 0; first < packs; first += kBatch * kWarp) {
    Pack<T> a[kBatch];
    Pack<T> b[kBatch];
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int at = first + k * kWarp + lane;
      a[k].bits = b[k].bits = make_uint4(0, 0, 0, 0);
      if (at < packs) {
        a[k] = w[at];
        b[k] = v[at];
      }
    }
#pragma unroll
    for (int k = 0; k < kBatch; ++k) dot.Add(a[k], b[k], k % kChains);
  }
  return dot.Sum();
}

// A slot of the list ring is handed back to the list warp by all sum warps, at
// a hardware barrier of its own.
constexpr int kFirstListBarrier = 2;  // 1 is that of DotBySumWarps.
__device__ void FreeListSlot(int slot) {
  asm volatile("bar.arrive %0, %1;" ::"r"(kFirstListBarrier + slot),
               "n"(kSumThreads + kWarp)
               : "memory");
}
__device__ void AwaitFreeListSlot(int slot) {
  asm volatile("bar.sync %0, %1;" ::"r"(kFirstListBarrier + slot),
               "n"(kSumThreads + kWarp)
               : "memory");
}

// What lane 0 of a gate warp knows of its rows: warp + k * kGateWarps.
struct GateOrders {
  const std::byte* row;  // To order next.
  size_t step;
  int left;  // Rows to order.

  __device__ void Order(const FusedBulkParams& p, void* slot, uint64_t* full) {
    if (left == 0) return;
    CopyBulk(slot, row, p.row_bytes, full);
    row += step;
    --left;
  }
  // Orders the first two rows. One goes to a slot of the list ring, which has
  // no use for it yet.
  __device__ void Start(const FusedBulkParams& p, int warp, int rows) {
    Head& head = SharedHead();
    row = Row(p.gate_proj, p, warp);
    step = static_cast<size_t>(kGateWarps) * gridDim.x * p.row_bytes;
    left = (rows - warp + kGateWarps - 1) / kGateWarps;
    InitBarrier(&head.gate_full[warp], 1);
    InitBarrier(&head.first_full[warp], 1);
    PublishBarriers();
    if (warp < p.list_slots) {
      Order(p, ListSlot(p, warp), &head.first_full[warp]);
    }
    Order(p, GateSlot(p, warp), &head.gate_full[warp]);
  }
};

template <typename T>
__device__ void RunGateWarp(const FusedBulkParams& p, GateOrders& orders,
                            int warp, int rows) {
  Head& head = SharedHead();
  const int lane = threadIdx.x % kWarp;
  uint32_t parity = 0;
  int round = 0;
  Wait(&head.hidden_full, 0);
  for (int i = warp; i < rows; i += kGateWarps, ++round) {
    const bool in_list_slot = round == 0 && warp < p.list_slots;
    std::byte* slot = in_list_slot ? ListSlot(p, warp) : GateSlot(p, warp);
    if (in_list_slot) {
      Wait(&head.first_full[warp], 0);
    } else {
      Wait(&head.gate_full[warp], parity);
      parity ^= 1;
    }
    const float score =
        DotRow<T>(slot, SharedHidden(p), p.row_bytes / kPackBytes);
    __syncwarp();
    if (in_list_slot) Arrive(&head.list_empty[warp]);
    if (lane != 0) continue;
    if (!in_list_slot) orders.Order(p, slot, &head.gate_full[warp]);
    head.scores[i] = score;
    Arrive(&head.round_done[round]);
  }
}

__device__ void InitListBarriers(const FusedBulkParams& p, int rows) {
  Head& head = SharedHead();
  const int lane = threadIdx.x % kWarp;
  for (int r = lane; r * kGateWarps < rows; r += kWarp) {
    InitBarrier(&head.round_done[r], min(kGateWarps, rows - r * kGateWarps));
  }
  if (lane < p.list_slots) {
    InitBarrier(&head.list_full[lane], 2);
    InitBarrier(&head.list_empty[lane], kWarp);
  }
  if (lane == 0) InitBarrier(&head.hidden_full, 1);
  PublishBarriers();
}

// By the whole list warp.
struct ListOrders {
  int gate_rows;  // That slots from 0 on hold first.
  RingPlace place;
  bool first_turn = true;

  __device__ void AwaitFree() const {
    if (!first_turn) {
      AwaitFreeListSlot(place.slot);
    } else if (place.slot < gate_rows) {
      Wait(&SharedHead().list_empty[place.slot], 0);
    }
  }
  __device__ void Order(const FusedBulkParams& p, const std::byte* row,
                        float score) {
    AwaitFree();
    if (threadIdx.x % kWarp == 0) Copy(p, row, score);
    place.Advance(p.list_slots);
    if (place.slot == 0) first_turn = false;
  }
  __device__ void Copy(const FusedBulkParams& p, const std::byte* row,
                       float score) const {
    Head& head = SharedHead();
    CopyBulk(ListSlot(p, place.slot), row, p.row_bytes,
             &head.list_full[place.slot]);
    head.list_scores[place.slot] = score;
    head.list_ends[place.slot] = 0;
    Arrive(&head.list_full[place.slot]);
  }
  __device__ void End(const FusedBulkParams& p) {
    Head& head = SharedHead();
    AwaitFree();
    if (threadIdx.x % kWarp == 0) {
      head.list_ends[place.slot] = 1;
      Arrive(&head.list_full[place.slot]);
      Arrive(&head.list_full[place.slot]);
    }
    // No barrier is left half full.
    const int used = first_turn ? place.slot : p.list_slots;
    for (int slot = 0; slot < used; ++slot) {
      if (slot != place.slot) AwaitFreeListSlot(slot);
    }
  }
};

__device__ void RunListWarp(const FusedBulkParams& p, int rows) {
  Head& head = SharedHead();
  const int lane = threadIdx.x % kWarp;
  if (lane == 0) {
    CopyBulk(SharedHidden(p), p.hidden_state, p.row_bytes, &head.hidden_full);
  }
  ListOrders orders = {min(kGateWarps, rows)};
  int active = 0;
  int round = 0;
  for (int first = 0; first < rows; first += kGateWarps, ++round) {
    Wait(&head.round_done[round], 0);
    const bool exists = lane < min(kGateWarps, rows - first);
    const float score = exists ? head.scores[first + lane] : 0;
    unsigned mask =
        __ballot_sync(kAllLanes, exists && IsActive(score, p.threshold));
    active += __popc(mask);
    for (; mask != 0; mask &= mask - 1) {
      const int i = first + __ffs(static_cast<int>(mask)) - 1;
      orders.Order(p, Row(p.up_proj, p, i), head.scores[i]);
      orders.Order(p, Row(p.down_proj, p, i), 0);
    }
  }
  if (lane == 0) p.active[blockIdx.x] = active;
  orders.End(p);
}

// row · x by all sum warps, in all of their threads. `turn` alternates.
template <typename T, int kPacks>
__device__ float DotBySumWarps(const Pack<T>* row, const Pack<T>* x, int packs,
                               int turn) {
  float(&up_sums)[kSumWarps] = SharedHead().up_sums[turn];
  const int thread = threadIdx.x - kGateWarps * kWarp;
  WarpDot<T, 2> dot;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int at = thread + k * kSumThreads;
    Pack<T> a = {};
    Pack<T> b = {};
    if (at < packs) {
      a = row[at];
      b = x[at];
    }
    dot.Add(a, b, k % 2);
  }
  const float sum = dot.Sum();
  if (thread % kWarp == 0) up_sums[thread / kWarp] = sum;
  asm volatile("bar.sync 1, %0;" ::"n"(kSumThreads) : "memory");
  return (up_sums[0] + up_sums[1]) + (up_sums[2] + up_sums[3]);
}

template <typename T, int kPacks>
__device__ void RunSumWarp(const FusedBulkParams& p) {
  Head& head = SharedHead();
  const int thread = threadIdx.x - kGateWarps * kWarp;
  const int packs = p.row_bytes / kPackBytes;
  const auto* x = reinterpret_cast<const Pack<T>*>(SharedHidden(p));
  float out[kPacks][kPack] = {};
  RingPlace place;
  const auto row = [&] {
    return reinterpret_cast<const Pack<T>*>(ListSlot(p, place.slot));
  };
  const auto release = [&] {
    FreeListSlot(place.slot);
    place.Advance(p.list_slots);
  };
  Wait(&head.hidden_full, 0);
  for (int turn = 0;; turn ^= 1) {
    Wait(&head.list_full[place.slot], place.parity);
    if (head.list_ends[place.slot] != 0) break;
    const float score = head.list_scores[place.slot];
    float up = DotBySumWarps<T, kPacks>(row(), x, packs, turn);
    release();
    if (p.clamp_up && up <= 0) up = 0;
    const float h = score * up;
    Wait(&head.list_full[place.slot], place.parity);
    if (h != 0) {  // True of NaN.
      const Pack<T>* down = row();
#pragma unroll
      for (int k = 0; k < kPacks; ++k) {
        const int at = thread + k * kSumThreads;
        if (at >= packs) break;
        float w[kPack];
        down[at].Unpack(w);
#pragma unroll
        for (int c = 0; c < kPack; ++c) out[k][c] = fmaf(h, w[c], out[k][c]);
      }
    }
    release();
  }
  auto* part = reinterpret_cast<float4*>(
      p.parts + static_cast<size_t>(blockIdx.x) * p.part_stride);
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int at = thread + k * kSumThreads;
    if (at >= packs) break;
    const float(&o)[kPack] = out[k];
    part[2 * at] = make_float4(o[0], o[1], o[2], o[3]);
    part[2 * at + 1] = make_float4(o[4], o[5], o[6], o[7]);
  }
}

#endif  // __CUDA_ARCH__ >= 900

// kPacks: most packs of a row that fall to a sum thread.
template <typename T, int kPacks>
__global__ void __launch_bounds__(kThreads, 1)
    FusedBulk(const __grid_constant__ FusedBulkParams p) {
#if __CUDA_ARCH__ >= 900
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int rows = BlockRows(p);
  AllowSuccessor();
  GateOrders orders;
  if (warp < kGateWarps && warp < rows && threadIdx.x % kWarp == 0) {
    orders.Start(p, warp, rows);
  } else if (warp == kListWarp) {
    InitListBarriers(p, rows);
  }
  __syncthreads();
  AwaitPredecessor();
  if (warp < kGateWarps) {
    RunGateWarp<T>(p, orders, warp, rows);
  } else if (warp == kListWarp) {
    RunListWarp(p, rows);
  } else {
    RunSumWarp<T, kPacks>(p);
  }
#endif
}

// Shared memory of a block, beside one of LaunchFusedSum on a multiprocessor.
constexpr int kSharedBytes = 220 << 10;

int SumPacks(int hidden_size) {
  return (hidden_size / kPack + kSumThreads - 1) / kSumThreads;
}

// Fills in the rest of the parameters; returns the bytes of shared memory.
int Plan(FusedBulkParams* p) {
  p->row_bytes = p->hidden_size * 2;
  const int rows = (kSharedBytes - kHeadBytes) / p->row_bytes;
  p->list_slots = std::min(rows - 1 - kGateWarps, kMaxListSlots);
  return kHeadBytes + (1 + kGateWarps + p->list_slots) * p->row_bytes;
}

// Calls f with the kernel for the parameters' type and size.
template <typename F>
cudaError_t DispatchKernel(Element element, int hidden_size, F&& f) {
  return DispatchElement(element, [&](auto zero) {
    using T = decltype(zero);
    const int packs = SumPacks(hidden_size);
    if (packs <= 2) return f(FusedBulk<T, 2>);
    if (packs <= 4) return f(FusedBulk<T, 4>);
    if (packs <= 5) return f(FusedBulk<T, 5>);
    return f(FusedBulk<T, kMaxPacks>);
  });
}

}  // namespace

int FusedBlocks(Device device, int intermediate_size) {
  return std::min(device.sm_count, intermediate_size);
}

bool FusedBulkTakes(Device device, int hidden_size, int intermediate_size) {
  const int blocks = FusedBlocks(device, intermediate_size);
  return device.dependent_launch && device.shared_bytes >= kSharedBytes &&
         RowsAligned(hidden_size) && SumPacks(hidden_size) <= kMaxPacks &&
         (intermediate_size + blocks - 1) / blocks <= kMaxRows;
}

cudaError_t PrepareFusedBulk(Element element, int hidden_size) {
  return DispatchKernel(element, hidden_size, [](auto kernel) {
    return AllowShared(kernel, kSharedBytes);
  });
}

cudaError_t LaunchFusedBulk(const FusedTokenParams& params,
                            cudaStream_t stream) {
  FusedBulkParams bulk = {params, 0, 0};
  const int shared_bytes = Plan(&bulk);
  const int blocks = FusedBlocks(params.device, params.intermediate_size);
  return DispatchKernel(params.element, params.hidden_size, [&](auto kernel) {
    return LaunchDependent(kernel, dim3(blocks), kThreads, shared_bytes,
                           params.device.dependent_launch, stream, bulk);
  });
}

}  // namespace sparse_ffn::cuda
