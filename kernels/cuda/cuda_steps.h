// The steps of the FFN as work queued on a stream, with the device buffers they
// pass on to each other. Nothing here waits or allocates after construction.
#ifndef SPARSE_FFN_KERNELS_CUDA_CUDA_STEPS_H_
#define SPARSE_FFN_KERNELS_CUDA_CUDA_STEPS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "kernels/cuda/cublas.h"
#include "kernels/cuda/cuda_handles.h"
#include "kernels/cuda/cuda_model.h"
#include "kernels/cuda/cuda_steps_memory.h"
#include "kernels/cuda/launch_fused.h"
#include "kernels/cuda/launch_steps.h"

namespace sparse_ffn::cuda {

// Used by one thread at a time. A batch is: hidden_states written, then Gate,
// SparseUp and SparseDown, or DenseGate, Select, DenseUp and DenseDown. Fused
// stands for all steps of a sparse batch where FusesAllSteps, FusedBatch for
// those of a larger one.
class CudaSteps {
 public:
  // Work goes to `stream`; model and stream must outlive the steps.
  static absl::StatusOr<std::unique_ptr<CudaSteps>> New(const CudaModel& model,
                                                        cudaStream_t stream);

  // Device memory that New takes, in bytes.
  static size_t DeviceBytes(const FfnConfig& config, int sm_count);

  // [StepsMemory::PaddedTokens(), hidden] of weights_dtype, on the device: from
  // row `first` on.
  void* hidden_states(int first = 0) const {
    return Row(hidden_states_, first, hidden_size_);
  }

  // Of all launches on the stream.
  FusedState* fused_state() const { return fused_state_; }

  // What a batch leaves behind, one piece on the device: CounterBytes() of
  // counters, of which this batch's stand at counter_offset(); then the output,
  // float32 [tokens, hidden].
  const std::byte* result() const { return result_; }
  float* output() const { return output_; }
  size_t ResultBytes(size_t tokens) const;
  static size_t CounterBytes(const FfnConfig& config);
  // In bytes, of the batch last selected or run by FusedBatch: the number of
  // neurons in the union, then that of each token, as int.
  size_t counter_offset() const { return counters_; }

  // Gate and SparseUp are for the same tokens. One of them also selects, and
  // clears the output, which SparseDown adds to: Gate for one token where it
  // has a form for that, else SparseUp.
  absl::Status Gate(const CudaLayer& layer, int tokens);
  // As all dense steps a product of cuBLAS, at any number of tokens; in a
  // deterministic backend also of the rows up to the next multiple of
  // kDenseTokens, whatever they hold. An ordinary launch, which waits for the
  // hidden states: SparseUp reads them while the kernel before it runs.
  absl::Status DenseGate(const CudaLayer& layer, int tokens) const;
  absl::Status Select(int tokens) { return Select(tokens, 0); }
  absl::Status SparseUp(const CudaLayer& layer, int tokens);
  absl::Status SparseDown(const CudaLayer& layer, int tokens) const;
  // Whether Fused takes the form for newer devices, which is faster than the
  // steps.
  static bool UsesFusedBulk(const CudaModel& model, int tokens);
  // Whether FusedBatch gives each token the bits that Fused gives it alone: in
  // a deterministic backend, where the sizes and the device allow it.
  static bool UsesOrderedBatch(const CudaModel& model);
  // Tokens of each pass of a fused batch of more; max_batch_tokens where none
  // runs in passes.
  static size_t PassTokens(const CudaModel& model);
  // Whether FusedBatch takes so many tokens.
  static bool TakesFusedBatch(const CudaModel& model, int tokens);
  // Whether its steps 1 and 2 stream whole rows.
  static bool StreamsRows(const CudaModel& model, int tokens) {
    return StreamsRows(model, tokens, UsesOrderedBatch(model));
  }
  // Whether Fused takes so many tokens.
  bool FusesAllSteps(int tokens) const;
  // For the result of one call, on the device or in page-locked host memory.
  struct ResultBuffers {
    float* output = nullptr;  // [tokens, hidden], as FusedSumParams::output.
    // [1 + tokens], as at counter_offset(). FusedBatch, unless
    // UsesOrderedBatch: [CounterStride(tokens)], aligned to 16 bytes.
    int* counters = nullptr;
    // [1], in host memory, or null: as in FusedSumParams, sooner than the
    // stream says so. FusedBatch: only where UsesOrderedBatch.
    int* done = nullptr;

    bool given() const { return output != nullptr; }
  };
  // Of one call of Fused, which uses no others, or of FusedBatch.
  struct FusedBuffers {
    // [tokens, hidden] of weights_dtype. Where UsesFusedBulk, on the device or
    // page-locked, 16-byte aligned, and there when the call is made, or when
    // `ahead` says so: no kernel before it in the stream may write them. Else
    // on the device, as written by the work before it in the stream.
    const void* hidden_states = nullptr;
    ResultBuffers result = {};
    // Of Fused only where UsesFusedBulk. Of FusedBatch only where StreamsRows,
    // and the number alone: that of a LaunchSmallCopy before it that waits.
    AheadParams ahead = {};
  };
  absl::Status Fused(const CudaLayer& layer, int tokens,
                     const FusedBuffers& buffers) const;
  // Leaves behind what SparseUp and SparseDown do; or, where a result is given,
  // has output and counters go there: unless UsesOrderedBatch the output has to
  // be on the device, and nothing ahead.
  absl::Status FusedBatch(const CudaLayer& layer, int tokens,
                          const FusedBuffers& buffers);
  // Leaves h in dense_gated(), [tokens, intermediate] of weights_dtype.
  absl::Status DenseUp(const CudaLayer& layer, int tokens) const;
  const void* dense_gated() const { return dense_gated_; }
  absl::Status DenseDown(const CudaLayer& layer, int tokens) const;

 private:
  int* CountersAt(size_t offset) const {
    return reinterpret_cast<int*>(result_ + offset);
  }
  int* counters() const { return CountersAt(counters_); }

  // What the launch that begins a batch has: the next counters, those after
  // them, which it clears, and the output, likewise.
  template <typename Params>
  void FillBegin(Params* params) const {
    params->counters = CountersAt(next_counters_);
    params->next_counters = CountersAt(counters_);
    params->next_count = static_cast<int>(StepsMemory::Counters(model_.config));
    params->output = output_;
  }
  // Takes those counters, unless that launch failed: then nothing was cleared.
  absl::Status Begin(cudaError_t launched, const char* what) {
    if (launched == cudaSuccess) std::swap(counters_, next_counters_);
    return ToStatus(launched, what);
  }
  // What the parameters of all launches with an up product have.
  template <typename Params>
  void FillUp(const CudaLayer& layer, Params* params) const {
    params->hidden_states = hidden_states_;
    params->up_proj = layer.up_proj;
    params->hidden_size = hidden_size_;
    params->intermediate_size = intermediate_size_;
    params->clamp_up = clamp_up_;
    params->element = model_.element;
    params->device = model_.device_traits;
  }
  // Whether the steps run in their form for one token.
  bool UsesOneTokenForm(int tokens) const {
    return tokens == 1 && OneTokenTakes(hidden_size_);
  }
  // Clears that much of the output.
  absl::Status Select(int tokens, int output_size);
  absl::Status OneTokenUp(const CudaLayer& layer) const;
  void* GatedLow() const;
  // As above. `ordered`: UsesOrderedBatch().
  static bool StreamsRows(const CudaModel& model, int tokens, bool ordered);
  // Those of the batch at hand, in whole packs.
  absl::Status CopyCounters(int tokens, int* to) const;
  // Step 3 of FusedBatch where UsesOrderedBatch.
  absl::Status OrderedDown(const CudaLayer& layer, int tokens,
                           const FusedBuffers& buffers) const;
  // What is the same in all sums of parts.
  FusedSumParams SumParams(int tokens, const ResultBuffers& result) const;
  // Calls product(first, tokens) for the rows of a dense product: for all at
  // once, or in a deterministic backend for kDenseTokens at a time.
  template <typename F>
  absl::Status InParts(int tokens, F&& product) const {
    if (!model_.config.deterministic) return product(0, tokens);
    constexpr int kPart = kDenseTokens;
    absl::Status status;
    for (int first = 0; first < tokens && status.ok(); first += kPart) {
      status = product(first, kPart);
    }
    return status;
  }
  // Of a matrix of 2-byte elements.
  static void* Row(void* matrix, int row, int columns) {
    return static_cast<uint16_t*>(matrix) + static_cast<size_t>(row) * columns;
  }
  // The gate or up product.
  absl::Status DenseProduct(const void* weights, int tokens, float* out) const;
  SparseDownParams DownParams(const CudaLayer& layer, int tokens,
                              const int* list_count) const;

  CudaSteps(const CudaModel& model, cudaStream_t stream);
  absl::Status PrepareKernels() const;
  // What FusedGatedUpParams and FusedTokensParams both have.
  template <typename Params>
  void FillFused(const CudaLayer& layer, int tokens, Params* params) const;

  const CudaModel& model_;
  cudaStream_t stream_;  // Constant.
  const int hidden_size_;
  const int intermediate_size_;
  const bool clamp_up_;
  std::optional<Cublas> cublas_;
  DeviceMemory memory_;  // All buffers below.
  // max_tokens: StepsMemory::PaddedTokens().
  void* hidden_states_ = nullptr;  // [max_tokens, hidden]
  float* scores_ = nullptr;        // [max_tokens, n]; one token: as listed
  int* union_list_ = nullptr;      // [n]; fused batch: those with h not 0, in
                                   // an ordered one with gaps
  // Sparse: [union, tokens]; batch form: gated_high, and at GatedLow() the low
  // part; ordered batch: [tokens, n], at the places of union_list_.
  float* gated_ = nullptr;
  void* dense_gated_ = nullptr;  // dense: [max_tokens, n]; in gated_'s place
  float* dense_up_ = nullptr;    // [max_tokens, n]
  // Fused: [blocks, tokens, hidden rounded up to 4]. Ordered batch: groups
  // instead of blocks.
  float* parts_ = nullptr;
  // Fused: [blocks, 1 + tokens]. Ordered batch: [blocks], block_counts.
  int* part_active_ = nullptr;
  void* passed_ = nullptr;  // fused: as in FusedTokensParams
  FusedState* fused_state_ = nullptr;
  std::byte* result_ = nullptr;
  float* output_ = nullptr;  // [max_tokens, hidden], in result_
  // Offsets in result_ of two sets of counters, which batches use in turn:
  // each clears those of the next.
  size_t counters_ = 0;
  size_t next_counters_;
};

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_CUDA_STEPS_H_
