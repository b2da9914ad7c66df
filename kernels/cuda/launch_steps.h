// The launches of single steps: of the sparse path, in its forms for one token,
// for any batch and for tensor cores, and of the dense one beside cuBLAS.
#ifndef SPARSE_FFN_KERNELS_CUDA_LAUNCH_STEPS_H_
#define SPARSE_FFN_KERNELS_CUDA_LAUNCH_STEPS_H_

#include <cstddef>

#include "kernels/cuda/launch.h"

namespace sparse_ffn::cuda {

// The operators are those of the ProSparse paper (arXiv 2402.13516, 4.3).

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

// The batch forms of steps 2 and 3, for up to kBatchFormTokens: h passes
// between them as gated_high and gated_low instead of gated. A weight of an
// active neuron that is not finite reaches every token of the batch.
cudaError_t PrepareGatedUpBatch(Element element);
cudaError_t LaunchGatedUpBatch(const GatedUpParams& params,
                               cudaStream_t stream);

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

#endif  // SPARSE_FFN_KERNELS_CUDA_LAUNCH_STEPS_H_
