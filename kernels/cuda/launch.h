// The seam between the host code and the kernels, seen by both compilers. Each
// launch function queues work on `stream`, last argument; it neither
// synchronises nor allocates. All pointers are device memory unless said
// otherwise. n stands for intermediate_size. Sizes are free; rows that start on
// 16-byte boundaries are read 16 bytes at a time. Each Prepare function must
// have been called for the current device before the launch it belongs to.
//
// Here what all launches share; launch_steps.h has those of single steps,
// launch_fused.h those of several steps in one kernel.
#ifndef SPARSE_FFN_KERNELS_CUDA_LAUNCH_H_
#define SPARSE_FFN_KERNELS_CUDA_LAUNCH_H_

#include <cuda_runtime_api.h>

namespace sparse_ffn::cuda {

// Element type of weights and hidden states.
enum class Element { kFloat16, kBFloat16 };

// What a launch needs to know of the device.
struct Device {
  int sm_count;
  bool dependent_launch;  // Compute capability 9.0 or newer.
  int shared_bytes;       // Of shared memory, that a block can have.
};

// What launches of a stream know of each other; all 0 before the first. The
// same in all of them; those of LaunchFusedBulk have the same sizes.
struct FusedState {
  unsigned long long blocks_begun;  // Of all launches of LaunchFusedBulk.
  // Of the launch at work, blocks that have stored what its `done` tells of.
  alignas(128) int blocks_done;
  int left;  // AheadParams::number of the last launches that were left.
};

// Launches made ahead of their batch: the first one waits for the host's word,
// and what needs no hidden states is done meanwhile. They are left, and have no
// result, where that is no, or does not come in time.
struct AheadParams {
  const int* word = nullptr;  // [1], page-locked; number: the hidden states are
                              // there; -number: leave. Null: behind the launch
                              // that waits, or not made ahead.
  int number = 0;  // >= 2, that of no batch shortly before. 0: not made ahead.
  unsigned patience_ns = 0;
};

// Copies between the device and page-locked host memory: sooner done than by
// the copy engine where there is little to copy. Both 16-byte aligned.
struct SmallCopyParams {
  const void* from;  // [packs] of 16 bytes
  void* to;          // [packs]
  int* done;         // [1], page-locked, or null: becomes kNotAhead
              // (launch_outcome.h) when all of it is there; made ahead as in
              // FusedSumParams
  // With a word it is the launch that waits, copies as one block when the batch
  // has come, and needs no `done`.
  AheadParams ahead;
  FusedState* state;  // for the two above
  int packs;
  Device device;
};
cudaError_t LaunchSmallCopy(const SmallCopyParams& params, cudaStream_t stream);

// Tokens of a batch form, which runs on the tensor cores, and takes 16-byte
// aligned rows (hidden_size a multiple of 8).
constexpr int kBatchFormTokens = 32;
// Up to how many tokens each of them is for.
constexpr int kBatchForms[] = {8, 16, kBatchFormTokens};
constexpr int BatchFormTokens(int tokens) {
  for (int form : kBatchForms) {
    if (tokens <= form) return form;
  }
  return kBatchFormTokens;
}

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_LAUNCH_H_
