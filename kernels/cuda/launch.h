// The seam between the host code and the kernels, seen by both compilers. Each
// launch function queues work on `stream`, last argument; it neither
// synchronises nor allocates. All pointers are device memory unless said
// otherwise. n stands for intermediate_size. Sizes are free; rows that start on
// 16-byte boundaries are read 16 bytes at a time.
#ifndef SPARSE_FFN_KERNELS_CUDA_LAUNCH_H_
#define SPARSE_FFN_KERNELS_CUDA_LAUNCH_H_

#include <cuda_runtime_api.h>

namespace sparse_ffn::cuda {

// The operators are those of the ProSparse paper (arXiv 2402.13516, 4.3).

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
  int* done;         // [1], page-locked, or null: becomes kNotAhead when all of
                     // it is there; made ahead as in FusedSumParams
  // With a word it is the launch that waits, copies as one block when the batch
  // has come, and needs no `done`.
  AheadParams ahead;
  FusedState* state;  // for the two above
  int packs;
  Device device;
};
cudaError_t LaunchSmallCopy(const SmallCopyParams& params, cudaStream_t stream);

// Operator Step (2), first half: activation and threshold, and the list of
// neurons that are active for at least one token. Also clears what later
// launches add to: the output of this batch and the counters of the next.
struct SelectActiveParams {
  float* scores;       // [tokens, n] gate scores; inactive ones become 0
  int* counters;       // [1 + tokens], 0 before: the union's, then each token's
  int* union_list;     // [n], neuron indexes in any order
  int* next_counters;  // [next_count], cleared
  float* output;       // [output_size], cleared
  int next_count;
  int output_size;
  int intermediate_size;
  int tokens;
  float threshold;  // active: >= threshold if that is > 0, else > 0
  Device device;
};
cudaError_t LaunchSelectActive(const SelectActiveParams& params,
                               cudaStream_t stream);

// Operator Step (2), second half: h = s * (up_proj x) for the listed neurons;
// a token for which a listed neuron is inactive gets exactly 0.
struct GatedUpParams {
  const void* hidden_states;  // [tokens, hidden], there before the kernel
                              // before this began
  const void* up_proj;        // [n, hidden]
  const float* scores;        // [tokens, n], after LaunchSelectActive
  const int* union_count;     // [1]
  const int* union_list;      // [union_count]
  float* gated;      // [union_count, tokens]: row i is neuron union_list[i]
  void* gated_high;  // batch form: [union_count, BatchFormTokens(tokens)], the
  void* gated_low;   // same in two elements, h = high + low; 0 beyond `tokens`
  int hidden_size;
  int intermediate_size;
  int tokens;
  bool clamp_up;  // dReLU: h = s * max(up, 0)
  Element element;
  Device device;
};
cudaError_t LaunchGatedUp(const GatedUpParams& params, cudaStream_t stream);

// The first two of the three steps of one token; LaunchOneTokenDown is the
// last.

// Operator Step (1): activation, threshold and list included. Also clears as
// LaunchSelectActive does. Lets the next kernel start only when the hidden
// states are there.
struct OneTokenGateParams {
  const void* hidden_states;  // [hidden]
  const void* gate_proj;      // [n, hidden]
  int* counters;              // [2], 0 before: active neurons, twice
  int* list;                  // [n], of which counters[0]: those, in any order
  float* scores;              // [n], of which counters[0]: of neuron list[i]
  int* next_counters;         // [next_count], cleared
  float* output;              // [hidden], cleared
  int next_count;
  int hidden_size;
  int intermediate_size;
  float threshold;  // active: >= threshold if that is > 0, else > 0
  Element element;
  Device device;
};
cudaError_t LaunchOneTokenGate(const OneTokenGateParams& params,
                               cudaStream_t stream);

// Operator Step (2). All n entries of list and scores are read, though not used
// beyond list_count.
struct OneTokenUpParams {
  const void* hidden_states;  // [hidden], as LaunchOneTokenGate, right before
                              // this, had them
  const void* up_proj;        // [n, hidden]
  const int* list_count;      // [1]
  const int* list;            // [list_count], neurons
  const float* scores;        // [list_count], theirs
  float* gated;               // [list_count]: h
  int hidden_size;
  int intermediate_size;
  bool clamp_up;  // dReLU: h = s * max(up, 0)
  Element element;
  Device device;
};
cudaError_t LaunchOneTokenUp(const OneTokenUpParams& params,
                             cudaStream_t stream);
// Whether the kernels for one token take rows of so many elements.
bool OneTokenTakes(int hidden_size);

// The batch forms of steps 2 and 3 run on the tensor cores. They take 16-byte
// aligned rows (hidden_size a multiple of 8) and up to kBatchFormTokens; h
// passes between them as gated_high and gated_low instead of gated. A weight of
// an active neuron that is not finite reaches every token of the batch.
constexpr int kBatchFormTokens = 32;
// Up to how many tokens each of them is for.
constexpr int kBatchForms[] = {8, 16, kBatchFormTokens};
constexpr int BatchFormTokens(int tokens) {
  for (int form : kBatchForms) {
    if (tokens <= form) return form;
  }
  return kBatchFormTokens;
}
// Each Prepare function must have been called for the current device before
// the launch it belongs to.
cudaError_t PrepareGatedUpBatch(Element element);
cudaError_t LaunchGatedUpBatch(const GatedUpParams& params,
                               cudaStream_t stream);

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

// Operator Step (3): adds h times the listed rows of down_proj to the output.
struct SparseDownParams {
  const void* down_proj;   // [n, hidden], transposed from the checkpoint
  const float* gated;      // [list_count, tokens]
  const void* gated_high;  // batch form: [list_count, BatchFormTokens(tokens)]
  const void* gated_low;
  const int* list_count;  // [1]
  const int* list;        // [list_count], neurons
  float* output;          // [tokens, hidden], 0 before
  int hidden_size;
  int intermediate_size;  // for one token
  int tokens;
  Element element;
  Device device;
};
cudaError_t LaunchSparseDown(const SparseDownParams& params,
                             cudaStream_t stream);
// The same for one token. All n entries of list and gated are read, though not
// used beyond list_count.
cudaError_t LaunchOneTokenDown(const SparseDownParams& params,
                               cudaStream_t stream);
cudaError_t PrepareSparseDownBatch(Element element);
cudaError_t LaunchSparseDownBatch(const SparseDownParams& params,
                                  cudaStream_t stream);

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
  int* done;      // [1], page-locked, or null: kNotAhead when both are there.
                  // Made ahead its number, or -number where it is left; then
                  // nothing else is written.
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

// Dense path: h = s * up, rounded once to the element type for the product
// with down_proj.
struct DenseGatedParams {
  const float* scores;  // [tokens, n], after LaunchSelectActive
  const float* up;      // [tokens, n]
  void* gated;          // [tokens, n]
  size_t elements;      // tokens * n
  bool clamp_up;
  Element element;
};
cudaError_t LaunchDenseGated(const DenseGatedParams& params,
                             cudaStream_t stream);

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_LAUNCH_H_
