// The launches that run several steps in one kernel, and those that finish what
// they leave.
#ifndef SPARSE_FFN_KERNELS_CUDA_LAUNCH_FUSED_H_
#define SPARSE_FFN_KERNELS_CUDA_LAUNCH_FUSED_H_

#include "kernels/cuda/launch.h"

namespace sparse_ffn::cuda {

// Steps 1 and 2 of a batch in one kernel: the batch form's gated neurons, from
// the hidden states. Also clears as LaunchSelectActive does.
struct FusedGatedUpParams {
  const void* hidden_states;  // [tokens, hidden]
  const void* gate_proj;      // [n, hidden]
  const void* up_proj;        // [n, hidden]
  int* counters;     // [1 + tokens], 0 before: the union's, then each token's
  int* gated_count;  // [1], 0 before: neurons with h other than 0
  int* gated_list;   // [gated_count], those, in any order
  void* gated_high;  // [gated_count, BatchFormTokens(tokens)]
  void* gated_low;
  // Or, where block_counts is not null, for LaunchOrderedDown: gated_list is
  // [n], places for all neurons that fall to the first block
  // (dealt_neurons.cuh), then the second, ...; a block's gated neurons take
  // its first places in order. gated_count and the two halves are not touched.
  int* block_counts;   // [FusedBlocks()]: places taken
  float* gated;        // [tokens, n]: h, at the places of gated_list
  int* next_counters;  // [next_count], cleared
  float* output;       // [output_size], cleared
  // LaunchFusedGatedUpRows, behind a LaunchSmallCopy that waits. Left, it only
  // clears, and finds no gated neuron.
  int ahead_number;         // Its AheadParams::number.
  const FusedState* state;  // for that
  int next_count;
  int output_size;
  int hidden_size;
  int intermediate_size;
  int tokens;
  float threshold;  // active: >= threshold if that is > 0, else > 0
  bool clamp_up;    // dReLU: h = s * max(up, 0)
  Element element;
  Device device;
};
// `ordered`: with block_counts.
cudaError_t PrepareFusedGatedUp(Element element, Device device,
                                int intermediate_size, bool ordered);
cudaError_t LaunchFusedGatedUp(const FusedGatedUpParams& params,
                               cudaStream_t stream);
// Whether there is one for these sizes on the device.
bool FusedGatedUpTakes(Device device, int tokens, int hidden_size,
                       int intermediate_size, bool ordered);

// The same of up to kBatchFormTokens on compute capability 9.0 and newer, for
// up to 512 neurons a block, where the hidden states of 16 tokens fit into its
// registers and two tiles of rows into its shared memory. For more tokens two
// blocks share up to 512: FusedBlocks() has to be even, rows at least 4 KB
// long, and out of order three tiles have to fit. Prepared for
// BatchFormTokens(tokens). With block_counts to the bits of LaunchFusedGatedUp.
cudaError_t PrepareFusedGatedUpRows(Element element, Device device, int tokens,
                                    int hidden_size, bool ordered);
cudaError_t LaunchFusedGatedUpRows(const FusedGatedUpParams& params,
                                   cudaStream_t stream);
bool FusedGatedUpRowsTakes(Device device, int tokens, int hidden_size,
                           int intermediate_size, bool ordered);

// Step 3 after LaunchFusedGatedUp or LaunchFusedGatedUpRows with block_counts:
// leaves parts that LaunchFusedSum, with one group, adds up to the bits that a
// token gets from LaunchFusedBulk with as_batch.
struct OrderedDownParams {
  const void* down_proj;    // [n, hidden], transposed from the checkpoint
  const int* block_counts;  // [blocks]
  const int* active;        // [tokens]: neurons of each of them; for balance
  const int* list;          // [n], as that launch left it; all is read
  const float* gated;       // [tokens, n], likewise
  float* parts;     // [SumGroups(), tokens, part_stride], 16-byte aligned
  int blocks;       // FusedBlocks()
  int part_stride;  // >= hidden_size, a multiple of 4
  int hidden_size;
  int intermediate_size;
  int tokens;
  Element element;
  Device device;
};
cudaError_t PrepareOrderedDown(Element element, Device device);
cudaError_t LaunchOrderedDown(const OrderedDownParams& params,
                              cudaStream_t stream);
// Whether there is one for these sizes on the device.
bool OrderedDownTakes(Device device, int hidden_size, int intermediate_size);

// Most tokens that all steps in one kernel can be for.
constexpr int kOneKernelTokens = 2;

// Places for hidden states that launches of LaunchFusedBulk use in turn.
constexpr int kPassedSets = 4;

// All steps for one token or a few, in one kernel: each block takes the neurons
// that it counts to and leaves its part of the output. LaunchFusedSum adds the
// parts. What a token gets does not depend on the others.
struct FusedTokensParams {
  // [tokens, hidden]. LaunchFusedBulk: on the device or page-locked, 16-byte
  // aligned, and there when the launch is queued, or when `ahead` says so; no
  // kernel before it in the stream may write them.
  const void* hidden_states;
  const void* gate_proj;  // [n, hidden]
  const void* up_proj;    // [n, hidden]
  const void* down_proj;  // [n, hidden], transposed from the checkpoint
  float* parts;  // [FusedBlocks(), tokens, part_stride], 16-byte aligned
  int* active;   // [FusedBlocks(), 1 + tokens]: of a block's neurons, those of
                 // the union, then of each token
  // For LaunchFusedBulk:
  void* passed;  // [kPassedSets, kOneKernelTokens, hidden] of 4 bytes, 16-byte
                 // aligned; as state 0 before the first, and in all launches
  FusedState* state;
  AheadParams ahead;
  int part_stride;  // >= hidden_size, a multiple of 4
  int hidden_size;
  int intermediate_size;
  int tokens;
  float threshold;  // active: >= threshold if that is > 0, else > 0
  bool clamp_up;    // dReLU: h = s * max(up, 0)
  bool as_batch;    // LaunchFusedBulk (else ignored): products to the bits of
                    // LaunchFusedGatedUp with block_counts
  Element element;
  Device device;
};
// Of every fused launch but LaunchFusedSum.
int FusedBlocks(Device device, int intermediate_size);
// Streams weights through shared memory with the copy engine; starts on them
// before the previous kernel has ended. Takes what FusedBulkTakes takes, on a
// device that PrepareFusedBulk was called for with these tokens.
cudaError_t LaunchFusedBulk(const FusedTokensParams& params,
                            cudaStream_t stream);
cudaError_t PrepareFusedBulk(Element element, int tokens, int hidden_size,
                             bool as_batch);
bool FusedBulkTakes(Device device, int tokens, int hidden_size,
                    int intermediate_size);
// One token of any size on any device.
cudaError_t LaunchFusedPortable(const FusedTokensParams& params,
                                cudaStream_t stream);

// Adds up what LaunchFusedBulk, LaunchFusedPortable or LaunchOrderedDown left,
// in an order that depends on nothing but the sizes, the groups and the device,
// not even on the number of tokens: equal inputs give equal bits.
struct FusedSumParams {
  const float* parts;  // [part_count, tokens, part_stride]
  const int* active;   // [active_count, 1 + tokens]: active neurons of disjoint
                       // pieces; or null: nothing is counted
  float* output;  // [tokens, hidden], on the device or page-locked; 16-byte
                  // aligned where hidden is a multiple of 4
  int* counters;  // [1 + tokens]: active neurons, of the union, then of each
                  // token; on the device or page-locked
  int* done;  // [1], page-locked, or null: kNotAhead (launch_outcome.h) when
              // both are there. Made ahead its number, or -number where it is
              // left; then nothing else is written.
  int ahead_number;   // AheadParams::number of the launch that waits.
  FusedState* state;  // for the two above
  int part_count;
  int active_count;
  int groups;  // SumGroups() or 1. Part i is of group i % groups: a group is
               // added up part by part, then the groups one by one.
  int part_stride;
  int hidden_size;
  int tokens;
  Device device;
};
// The groups for FusedBlocks() parts.
int SumGroups(int sm_count, int hidden_size);
// Has the kernels loaded, so that no batch waits for that.
cudaError_t PrepareFusedSum();
cudaError_t LaunchFusedSum(const FusedSumParams& params, cudaStream_t stream);

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_LAUNCH_FUSED_H_
