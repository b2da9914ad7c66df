// Steps 1 and 2 of a batch in one kernel, a block a multiprocessor: of one in
// the portable form, and of any that fused_gated_up_rows.cu does not take. A
// block's neurons are dealt out beforehand: it computes their scores, and then
// the up products of those that are active for a token.
#include <type_traits>

#include "kernels/cuda/batch_products.cuh"
#include "kernels/cuda/clear.cuh"
#include "kernels/cuda/dealt_neurons.cuh"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/dot_order.cuh"
#include "kernels/cuda/launch_fused.h"
#include "kernels/cuda/split_gated.cuh"

namespace sparse_ffn::cuda {
namespace {

// The rows that something is true of, in order.
template <int kRows>
struct RowList {
  int flags[kRows];  // In: other than 0 where it is true.
  int rows[kRows];
  int count;

  // By one warp, between barriers.
  __device__ void Make(int total) {
    const int lane = threadIdx.x % kWarp;
    int before = 0;
    for (int first = 0; first < total; first += kWarp) {
      const int row = first + lane;
      const bool is_listed = row < total && flags[row] != 0;
      const unsigned mask = __ballot_sync(kAllLanes, is_listed);
      if (is_listed) rows[before + __popc(mask & ((1u << lane) - 1))] = row;
      before += __popc(mask);
    }
    if (lane == 0) count = before;
  }
};

// With block_counts where S is in order.
template <typename T, typename S, int kTokenTiles>
class Block {
  using Batch = BatchProducts<T, S, kTokenTiles>;
  static constexpr int kRows = Batch::kRows;
  static constexpr int kTokens = Batch::kTokens;

 public:
  static constexpr int kThreads = Batch::kThreads;

  struct Shared {
    typename Batch::Shared batch;
    float scores[kRows][kTokens];  // 0 where inactive.
    RowList<kRows> active;
    RowList<kRows> gated;  // Places in active.rows.
    int token_counts[kTokens];
    int gated_first;  // Of these, in the gated list.
  };

  __device__ Block(const FusedGatedUpParams& p, std::byte* shared)
      : p_(p),
        shared_(*reinterpret_cast<Shared*>(shared)),
        batch_(shared_.batch, p.hidden_states, p.tokens, p.hidden_size) {}

  __device__ void Run() {
    const int all = DealtTo(p_.intermediate_size, static_cast<int>(gridDim.x),
                            static_cast<int>(blockIdx.x));
    for (first_ = 0; first_ < all; first_ += kRows) {
      const int rows = min(kRows, all - first_);
      batch_.Start(p_.gate_proj, rows, [&](int row) { return Neuron(row); });
      if (first_ == 0) Begin();
      Select(batch_.Finish(), rows);
      const int active = shared_.active.count;
      if (active == 0) continue;
      batch_.Start(p_.up_proj, active, [&](int i) { return ActiveNeuron(i); });
      auto& products = batch_.Finish();
      Gate(products, active);
      Store(products);
    }
    if constexpr (S::kInOrder) {
      if (threadIdx.x == 0) p_.block_counts[blockIdx.x] = stored_;
    }
    __syncthreads();
    for (int t = threadIdx.x; t < p_.tokens; t += kThreads) {
      if (shared_.token_counts[t] != 0) {
        atomicAdd(&p_.counters[1 + t], shared_.token_counts[t]);
      }
    }
  }

 private:
  __device__ int Neuron(int row) const { return DealtNeuron(first_ + row); }
  __device__ int ActiveNeuron(int i) const {
    return Neuron(shared_.active.rows[i]);
  }

  // Calls matters(row, token) for all tokens of the first `rows` rows, and
  // lists those of which it is true for some token. A thread always has the
  // same token, threadIdx.x % kTokens. Ends with a barrier.
  template <typename F>
  __device__ void ForRows(int rows, RowList<kRows>* list, F&& matters) {
    constexpr unsigned kRowLanes = kAllLanes >> (kWarp - kTokens);
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int token = lane % kTokens;
    const unsigned row_lanes = kRowLanes << (lane - token);
    for (int row = threadIdx.x / kTokens; row < rows;
         row += kThreads / kTokens) {
      const int some = __any_sync(row_lanes, matters(row, token));
      if (token == 0) list->flags[row] = some;
    }
    __syncthreads();
    if (threadIdx.x < kWarp) list->Make(rows);
    __syncthreads();
  }

  // What has to wait for the kernel before.
  __device__ void Begin() {
    for (int t = threadIdx.x; t < kTokens; t += kThreads) {
      shared_.token_counts[t] = 0;
    }
    WaitForPredecessor();
    ClearForBatch<kThreads>(p_, p_.output_size);
  }

  // Lists the active rows and counts them.
  __device__ void Select(const typename Batch::Products& scores, int rows) {
    int count = 0;
    ForRows(rows, &shared_.active, [&](int row, int token) {
      const float score = scores[row][token];
      const bool is_active = token < p_.tokens && IsActive(score, p_.threshold);
      shared_.scores[row][token] = is_active ? score : 0;
      count += is_active ? 1 : 0;
      return is_active;
    });
    atomicAdd(&shared_.token_counts[threadIdx.x % kTokens], count);
    if (threadIdx.x == 0) atomicAdd(p_.counters, shared_.active.count);
  }

  // Products are up sums: makes them h, and lists the rows that matter.
  __device__ void Gate(typename Batch::Products& products, int active) {
    ForRows(active, &shared_.gated, [&](int row, int token) {
      const float score = shared_.scores[shared_.active.rows[row]][token];
      float up = products[row][token];
      if (p_.clamp_up && up <= 0) up = 0;
      const float h = score == 0 ? 0 : score * up;
      products[row][token] = h;
      return h != 0;  // True of NaN.
    });
  }

  __device__ void Store(const typename Batch::Products& products) {
    if constexpr (S::kInOrder) {
      StoreInOrder(products);
    } else {
      StoreAnywhere(products);
    }
    __syncthreads();
  }

  __device__ void StoreAnywhere(const typename Batch::Products& products) {
    if (threadIdx.x == 0) {
      shared_.gated_first = atomicAdd(p_.gated_count, shared_.gated.count);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < shared_.gated.count * kTokens;
         i += kThreads) {
      const int place = shared_.gated.rows[i / kTokens];
      const int at = shared_.gated_first + i / kTokens;
      const int token = i % kTokens;
      if (token == 0) p_.gated_list[at] = ActiveNeuron(place);
      StoreGated<T>(p_.gated_high, p_.gated_low,
                    static_cast<size_t>(at) * kTokens + token,
                    products[place][token]);
    }
  }

  __device__ void StoreInOrder(const typename Batch::Products& products) {
    const int count = shared_.gated.count;
    const int first = stored_ + DealtBefore(p_.intermediate_size);
    for (int i = threadIdx.x; i < count * p_.tokens; i += kThreads) {
      const int place = shared_.gated.rows[i % count];
      const int at = first + i % count;
      const int token = i / count;
      if (token == 0) p_.gated_list[at] = ActiveNeuron(place);
      p_.gated[static_cast<size_t>(token) * p_.intermediate_size + at] =
          products[place][token];
    }
    stored_ += count;
  }

  const FusedGatedUpParams& p_;
  Shared& shared_;
  Batch batch_;
  int first_ = 0;   // Of the rows at hand, among the block's.
  int stored_ = 0;  // In order: gated neurons so far.
};

template <typename B>
__global__ void __launch_bounds__(B::kThreads, 1)
    FusedGatedUp(const __grid_constant__ FusedGatedUpParams p) {
  extern __shared__ __align__(16) std::byte shared[];
  B(p, shared).Run();
}

template <typename B>
constexpr int kSharedBytes = static_cast<int>(sizeof(typename B::Shared));

template <typename B>
struct Kind {
  using type = B;
};

// Few tokens: each warp all rows, for wide chunks. More: half of the rows, for
// the registers; and so in order.
template <typename T, int kRowTiles, int kTokenTiles, int kRingBytes,
          bool kOrdered>
using BlockOf = std::conditional_t<
    kTokenTiles == 1 && !kOrdered,
    Block<T, BatchShape<kRowTiles, 1, 16, kRingBytes>, kTokenTiles>,
    Block<T, BatchShape<kRowTiles, 2, kOrdered ? kDotShares : 8, kRingBytes>,
          kTokenTiles>>;

// Calls f with the block for `rows` neurons, as a Kind. All of them at once
// where they fit, so that the hidden states are read but twice.
template <bool kOrdered, int kTokenTiles, typename F>
cudaError_t DispatchBlock(Element element, int rows,
                          std::integral_constant<int, kTokenTiles> /*tokens*/,
                          F&& f) {
  return DispatchElement(element, [&](auto zero) {
    using T = decltype(zero);
    if (rows <= 32) {
      return f(Kind<BlockOf<T, 2, kTokenTiles, (128 << 10), kOrdered>>());
    }
    // With scores and lists, of the 227 KB of a block.
    constexpr int kRingBytes = (kTokenTiles == 4 ? 208 : 216) << 10;
    if (rows <= 96) {
      return f(Kind<BlockOf<T, 6, kTokenTiles, kRingBytes, kOrdered>>());
    }
    // As many as registers hold, and in order as leave three stages.
    constexpr int kMost = kTokenTiles == 1 || kOrdered ? 7 : 8;
    return f(Kind<BlockOf<T, kMost, kTokenTiles, kRingBytes, kOrdered>>());
  });
}

// Calls f with `ordered` as an integral constant.
template <typename F>
cudaError_t DispatchOrdered(bool ordered, F&& f) {
  return ordered ? f(std::true_type()) : f(std::false_type());
}

int BlockRows(Device device, int intermediate_size) {
  return MostDealt(intermediate_size, FusedBlocks(device, intermediate_size));
}

}  // namespace

bool FusedGatedUpTakes(Device device, int tokens, int hidden_size,
                       int intermediate_size, bool ordered) {
  bool fits = false;
  const auto check = [&](auto token_tiles) {
    return DispatchOrdered(ordered, [&](auto order) {
      return DispatchBlock<order>(
          Element::kFloat16, BlockRows(device, intermediate_size), token_tiles,
          [&](auto block) {
            using B = typename decltype(block)::type;
            fits = device.shared_bytes >= kSharedBytes<B>;
            return cudaSuccess;
          });
    });
  };
  return RowsAligned(hidden_size) && tokens <= kBatchFormTokens &&
         DispatchTokenTiles(tokens, check) == cudaSuccess && fits;
}

cudaError_t PrepareFusedGatedUp(Element element, Device device,
                                int intermediate_size, bool ordered) {
  return ForEachTokenTiles([&](auto token_tiles) {
    return DispatchOrdered(ordered, [&](auto order) {
      return DispatchBlock<order>(element, BlockRows(device, intermediate_size),
                                  token_tiles, [&](auto block) {
                                    using B = typename decltype(block)::type;
                                    if (device.shared_bytes < kSharedBytes<B>)
                                      return cudaSuccess;
                                    return AllowShared(FusedGatedUp<B>,
                                                       kSharedBytes<B>);
                                  });
    });
  });
}

cudaError_t LaunchFusedGatedUp(const FusedGatedUpParams& params,
                               cudaStream_t stream) {
  const int blocks = FusedBlocks(params.device, params.intermediate_size);
  return DispatchTokenTiles(params.tokens, [&](auto token_tiles) {
    return DispatchOrdered(params.block_counts != nullptr, [&](auto order) {
      return DispatchBlock<order>(
          params.element, BlockRows(params.device, params.intermediate_size),
          token_tiles, [&](auto block) {
            using B = typename decltype(block)::type;
            return LaunchDependent(
                FusedGatedUp<B>, dim3(blocks), B::kThreads, kSharedBytes<B>,
                params.device.dependent_launch, stream, params);
          });
    });
  });
}

}  // namespace sparse_ffn::cuda
