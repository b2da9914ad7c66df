// How the blocks of fused_bulk.cu come by the hidden states: the first one
// fetches what lies in the host's memory and passes it on. No kernel has to
// come before for it, so that launches overlap from the first row on.
//
// What is passed on are words of 8 bytes, each whole or not there yet: 4 bytes
// of hidden states, PairWords of each pack, and the tag of the launch.
#ifndef SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_FETCH_CUH_
#define SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_FETCH_CUH_

#include "kernels/cuda/ahead.cuh"
#include "kernels/cuda/fused_bulk_block.cuh"
#include "kernels/cuda/load_if.cuh"

#if __CUDA_ARCH__ >= 900

namespace sparse_ffn::cuda {

// The number of this launch, from 0. All blocks of all launches count
// themselves, and each must have done so before it allows the successor: so
// those of a launch come before those of the next, and each has as many.
__device__ inline unsigned long long EnterLaunch(const FusedBulkParams& p) {
  return atomicAdd(&p.state->blocks_begun, 1ULL) / gridDim.x;
}

// By the sum warps. Packs threadIdx + k * kSumThreads of the hidden states of
// all tokens fall to a thread, for k < kTokens * kPacks.
template <DotOrder kOrder, int kTokens, int kPacks, bool kAhead>
class HiddenStates {
  using Shared = Head<kTokens>;
  static constexpr int kThreadPacks = kTokens * kPacks;

 public:
  // By the first block, ahead of all that needs the launch's number; where the
  // launch is made ahead, Pass does it.
  __device__ void StartFetch(const FusedBulkParams& p) {
    const auto* from = static_cast<const uint4*>(p.hidden_states);
#pragma unroll
    for (int k = 0; k < kThreadPacks; ++k) {
      // By a branch, five of a thread take a microsecond longer over PCIe.
      packs_[k] = LoadIf<LoadFrom::kMemory>(At(k) < End(p), from + At(k));
    }
  }
  // Then: passes them on and leaves them in `shared`. Sets head.left where the
  // launch is left.
  __device__ void Pass(const FusedBulkParams& p, Shared& head, uint4* shared) {
    if constexpr (kAhead) {
      if (threadIdx.x == 0) {
        head.left = !AwaitWord(p.ahead);
        Arrive(&head.told);
      }
      // Not by Wait, which after a long time is 3 microseconds late.
      while (!HasEnded(&head.told, 0)) {
      }
      if (head.left) {
        if (threadIdx.x == 0) PassNone(p, head.launch);
        return;
      }
      StartFetch(p);
    }
    EndFetch(p, head.launch, shared);
  }
  // By the others: waits for them, likewise.
  __device__ void Receive(const FusedBulkParams& p, Shared& head,
                          uint4* shared) {
    const unsigned long long launch = head.launch;
    if (At(0) >= End(p)) return;
    if (!kAhead && !AwaitPassed(p, launch)) {
      StartFetch(p);
      EndFetch(p, launch, shared);
      return;
    }
    // In flight at once: all where they are few, else four, for the registers.
    constexpr int kLoads = kThreadPacks <= 5 ? kThreadPacks : 4;
    const unsigned tag = Tag(launch);
    const uint4* from = Passed(p, launch);
    for (int first = 0; At(first) < End(p); first += kLoads) {
      uint4 words[kLoads][2];
      bool complete = false;
      while (!complete) {
        complete = true;
#pragma unroll
        for (int k = 0; k < kLoads; ++k) {
          if (At(first + k) >= End(p)) break;
          words[k][0] = Load(from + 2 * At(first + k));
          words[k][1] = Load(from + 2 * At(first + k) + 1);
        }
#pragma unroll
        for (int k = 0; k < kLoads; ++k) {
          if (At(first + k) >= End(p)) break;
          complete = complete && words[k][0].y == tag && words[k][0].w == tag &&
                     words[k][1].y == tag && words[k][1].w == tag;
        }
        if (kAhead && !complete && IsNone(p, launch)) {
          if (threadIdx.x == 0) head.left = true;
          return;
        }
      }
#pragma unroll
      for (int k = 0; k < kLoads; ++k) {
        if (At(first + k) >= End(p)) break;
        shared[At(first + k)] = make_uint4(words[k][0].x, words[k][0].z,
                                           words[k][1].x, words[k][1].z);
      }
    }
  }

 private:
  static constexpr unsigned kTagBit = 0x80000000u;
  static constexpr unsigned kNoneBit = 0x40000000u;  // The launch is left.

  __device__ static int At(int k) {
    return static_cast<int>(threadIdx.x) + k * kSumThreads;
  }
  __device__ static int End(const FusedBulkParams& p) {
    return p.tokens * p.row_bytes / kPackBytes;
  }
  // Not 0, nor that of a launch before which may have left the word.
  __device__ static unsigned Tag(unsigned long long launch) {
    return (static_cast<unsigned>(launch / kPassedSets) & ~kNoneBit) | kTagBit;
  }
  __device__ static uint4* Passed(const FusedBulkParams& p,
                                  unsigned long long launch) {
    return static_cast<uint4*>(p.passed) + launch % kPassedSets *
                                               (2 * kOneKernelTokens) *
                                               (p.row_bytes / kPackBytes);
  }
  // What thread `thread` of the first block stores last, if it has packs.
  __device__ static uint4* LastWords(const FusedBulkParams& p,
                                     unsigned long long launch, int thread) {
    const int last = thread + (End(p) - 1 - thread) / kSumThreads * kSumThreads;
    return Passed(p, launch) + 2 * last + 1;
  }
  __device__ void EndFetch(const FusedBulkParams& p, unsigned long long launch,
                           uint4* shared) const {
    const unsigned tag = Tag(launch);
    uint4* to = Passed(p, launch);
#pragma unroll
    for (int k = 0; k < kThreadPacks; ++k) {
      if (At(k) >= End(p)) break;
      const uint4 pack = PairWords<kOrder>(packs_[k]);
      Store(to + 2 * At(k), make_uint4(pack.x, tag, pack.y, tag));
      Store(to + 2 * At(k) + 1, make_uint4(pack.z, tag, pack.w, tag));
      shared[At(k)] = pack;
    }
  }
  __device__ static void PassNone(const FusedBulkParams& p,
                                  unsigned long long launch) {
    const unsigned tag = Tag(launch) | kNoneBit;
    Store(LastWords(p, launch, 0), make_uint4(0, tag, 0, tag));
  }
  __device__ static bool IsNone(const FusedBulkParams& p,
                                unsigned long long launch) {
    return Load(LastWords(p, launch, 0)).w == (Tag(launch) | kNoneBit);
  }
  // Until this thread's counterpart in the first block has passed all. As long
  // as there is nothing, only its last word is looked at: all blocks ask while
  // the launch before is at work. False: not within some milliseconds. Blocks
  // begin in order, but nobody promises that: a device full of waiting ones
  // must not wait for ever. (A launch made ahead is that of the only lane, so
  // that there is room for its first block.)
  __device__ static bool AwaitPassed(const FusedBulkParams& p,
                                     unsigned long long launch) {
    constexpr int kMostLooks = 1 << 14;
    const unsigned tag = Tag(launch);
    const uint4* last = LastWords(p, launch, static_cast<int>(threadIdx.x));
    for (int looks = 0; Load(last).w != tag; ++looks) {
      if (looks >= kMostLooks) return false;
    }
    return true;
  }
  // Of two words.
  __device__ static void Store(uint4* to, const uint4& words) {
    asm volatile("st.relaxed.gpu.global.v2.b64 [%0], {%1, %2};" ::"l"(to),
                 "l"(Word(words.x, words.y)), "l"(Word(words.z, words.w))
                 : "memory");
  }
  __device__ static uint4 Load(const uint4* from) {
    unsigned long long low;
    unsigned long long high;
    asm volatile("ld.relaxed.gpu.global.v2.b64 {%0, %1}, [%2];"
                 : "=l"(low), "=l"(high)
                 : "l"(from)
                 : "memory");
    return make_uint4(
        static_cast<unsigned>(low), static_cast<unsigned>(low >> 32),
        static_cast<unsigned>(high), static_cast<unsigned>(high >> 32));
  }
  __device__ static unsigned long long Word(unsigned bits, unsigned tag) {
    return static_cast<unsigned long long>(tag) << 32 | bits;
  }

  uint4 packs_[kThreadPacks];
};

}  // namespace sparse_ffn::cuda

#endif  // __CUDA_ARCH__ >= 900

#endif  // SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_FETCH_CUH_
