// How the blocks of fused_bulk.cu come by the hidden states: the first one
// fetches what lies in the host's memory and passes it on. No kernel has to
// come before for it, so that launches overlap from the first row on.
//
// What is passed on are words of 8 bytes, each whole or not there yet: 4 bytes
// of hidden states and the tag of the launch.
#ifndef SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_FETCH_CUH_
#define SPARSE_FFN_KERNELS_CUDA_FUSED_BULK_FETCH_CUH_

#include "kernels/cuda/fused_bulk_block.cuh"

#if __CUDA_ARCH__ >= 900

namespace sparse_ffn::cuda {

// The number of this launch, from 0. All blocks of all launches count
// themselves, and each must have done so before it allows the successor: so
// those of a launch come before those of the next, and each has as many.
__device__ inline unsigned long long EnterLaunch(const FusedBulkParams& p) {
  return atomicAdd(&p.state->blocks_begun, 1ULL) / gridDim.x;
}

// By the sum warps. Packs threadIdx + k * kSumThreads of the hidden states of
// all tokens fall to a thread, for k < kThreadPacks.
template <int kThreadPacks>
class HiddenStates {
 public:
  // By the first block, ahead of all that needs the launch's number.
  __device__ void StartFetch(const FusedBulkParams& p) {
    const auto* from = static_cast<const uint4*>(p.hidden_states);
#pragma unroll
    for (int k = 0; k < kThreadPacks; ++k) {
      if (At(k) < End(p)) packs_[k] = __ldcv(from + At(k));
    }
  }
  // Then: passes them on and leaves them in `shared`.
  __device__ void EndFetch(const FusedBulkParams& p, unsigned long long launch,
                           uint4* shared) const {
    const unsigned tag = Tag(launch);
    uint4* to = Passed(p, launch);
#pragma unroll
    for (int k = 0; k < kThreadPacks; ++k) {
      if (At(k) >= End(p)) break;
      const uint4& pack = packs_[k];
      Store(to + 2 * At(k), make_uint4(pack.x, tag, pack.y, tag));
      Store(to + 2 * At(k) + 1, make_uint4(pack.z, tag, pack.w, tag));
      shared[At(k)] = pack;
    }
  }
  // By the others: waits for them and leaves them in `shared`.
  __device__ void Receive(const FusedBulkParams& p, unsigned long long launch,
                          uint4* shared) {
    // Some milliseconds. Blocks begin in order, but nobody promises that: a
    // device full of waiting ones must not wait for ever.
    constexpr int kMostLooks = 1 << 14;
    // In flight at once.
    constexpr int kLoads = kThreadPacks < 4 ? kThreadPacks : 4;
    const unsigned tag = Tag(launch);
    const uint4* from = Passed(p, launch);
    if (At(0) >= End(p)) return;
    // As long as there is nothing, only the word that this thread's counterpart
    // in the first block stores last: all blocks ask.
    const int last = At(0) + (End(p) - 1 - At(0)) / kSumThreads * kSumThreads;
    for (int looks = 0; Load(from + 2 * last + 1).w != tag; ++looks) {
      if (looks < kMostLooks) continue;
      StartFetch(p);
      EndFetch(p, launch, shared);
      return;
    }
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
  __device__ static int At(int k) {
    return static_cast<int>(threadIdx.x) + k * kSumThreads;
  }
  __device__ static int End(const FusedBulkParams& p) {
    return p.tokens * p.row_bytes / kPackBytes;
  }
  // Not 0, nor that of a launch before which may have left the word.
  __device__ static unsigned Tag(unsigned long long launch) {
    return static_cast<unsigned>(launch / kPassedSets) | 0x80000000u;
  }
  __device__ static uint4* Passed(const FusedBulkParams& p,
                                  unsigned long long launch) {
    return static_cast<uint4*>(p.passed) + launch % kPassedSets *
                                               (2 * kOneKernelTokens) *
                                               (p.row_bytes / kPackBytes);
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
