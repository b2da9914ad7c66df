#include "kernels/cuda/cuda_steps.h"

#include <utility>

#include "kernels/cuda/path_choice.h"

namespace sparse_ffn::cuda {

static_assert(kMaxBatchFormTokens == kBatchFormTokens);
static_assert(kMaxOneKernelTokens == kOneKernelTokens);

size_t CudaSteps::CounterBytes(const FfnConfig& config) {
  return StepsMemory::CounterBytes(config);
}

size_t CudaSteps::DeviceBytes(const FfnConfig& config, int sm_count) {
  return StepsMemory(config, sm_count).total();
}

size_t CudaSteps::ResultBytes(size_t tokens) const {
  return CounterBytes(model_.config) +
         tokens * model_.config.hidden_size * sizeof(float);
}

CudaSteps::CudaSteps(const CudaModel& model, cudaStream_t stream)
    : model_(model),
      stream_(stream),
      hidden_size_(static_cast<int>(model.config.hidden_size)),
      intermediate_size_(static_cast<int>(model.config.intermediate_size)),
      clamp_up_(model.config.activation == Activation::kDRelu),
      next_counters_(StepsMemory::Counters(model.config) * sizeof(int)) {}

absl::StatusOr<std::unique_ptr<CudaSteps>> CudaSteps::New(
    const CudaModel& model, cudaStream_t stream) {
  std::unique_ptr<CudaSteps> steps(new CudaSteps(model, stream));
  auto cublas = Cublas::New(stream);
  if (!cublas.ok()) return cublas.status();
  steps->cublas_ = *std::move(cublas);
  const StepsMemory sizes(model.config, model.device_traits.sm_count);
  auto memory = NewDeviceMemory(sizes.total());
  if (!memory.ok()) return memory.status();
  steps->memory_ = *std::move(memory);
  std::byte* at = steps->memory_.get();
  const auto take = [&at](size_t bytes) {
    return std::exchange(at, at + bytes);
  };
  steps->hidden_states_ = take(sizes.hidden_states);
  steps->scores_ = reinterpret_cast<float*>(take(sizes.scores));
  steps->union_list_ = reinterpret_cast<int*>(take(sizes.union_list));
  steps->gated_ = reinterpret_cast<float*>(take(sizes.gated));
  steps->dense_gated_ = steps->gated_;
  steps->dense_up_ = reinterpret_cast<float*>(take(sizes.dense_up));
  steps->parts_ = reinterpret_cast<float*>(take(sizes.parts));
  steps->part_active_ = reinterpret_cast<int*>(take(sizes.part_active));
  steps->passed_ = take(sizes.passed);
  steps->fused_state_ = reinterpret_cast<FusedState*>(take(sizes.fused_state));
  steps->result_ = take(sizes.result);
  absl::Status status = steps->PrepareKernels();
  status.Update(
      ToStatus(cudaMemsetAsync(steps->passed_, 0,
                               sizes.passed + sizes.fused_state, stream),
               "clearing what launches pass on"));
  status.Update(ToStatus(
      cudaMemsetAsync(steps->result_, 0, CounterBytes(model.config), stream),
      "clearing the counters"));
  if (!status.ok()) return status;
  steps->output_ =
      reinterpret_cast<float*>(steps->result_ + CounterBytes(model.config));
  return steps;
}

absl::Status CudaSteps::PrepareKernels() const {
  const bool ordered = UsesOrderedBatch(model_);
  absl::Status status =
      ToStatus(PrepareGatedUpBatch(model_.element), "preparing step 2");
  status.Update(
      ToStatus(PrepareSparseDownBatch(model_.element), "preparing step 3"));
  status.Update(
      ToStatus(PrepareFusedGatedUp(model_.element, model_.device_traits,
                                   intermediate_size_, ordered),
               "preparing the fused batch"));
  for (int tokens = 1; UsesFusedBulk(model_, tokens); ++tokens) {
    status.Update(ToStatus(
        PrepareFusedBulk(model_.element, tokens, hidden_size_, ordered),
        "preparing the fused FFN"));
  }
  for (int tokens : kBatchForms) {
    if (!StreamsRows(model_, tokens, ordered)) continue;
    status.Update(
        ToStatus(PrepareFusedGatedUpRows(model_.element, model_.device_traits,
                                         tokens, hidden_size_, ordered),
                 "preparing the fused batch by rows"));
  }
  status.Update(ToStatus(PrepareFusedSum(), "preparing the sum"));
  if (ordered) {
    status.Update(
        ToStatus(PrepareOrderedDown(model_.element, model_.device_traits),
                 "preparing the ordered batch"));
  }
  return status;
}

absl::Status CudaSteps::Gate(const CudaLayer& layer, int tokens) {
  if (!UsesOneTokenForm(tokens)) return DenseGate(layer, tokens);
  OneTokenGateParams params;
  FillBegin(&params);
  params.hidden_states = hidden_states_;
  params.gate_proj = layer.gate_proj;
  params.list = union_list_;
  params.scores = scores_;
  params.hidden_size = hidden_size_;
  params.intermediate_size = intermediate_size_;
  params.threshold = model_.config.threshold;
  params.element = model_.element;
  params.device = model_.device_traits;
  return Begin(LaunchOneTokenGate(params, stream_), "step 1 of one token");
}

absl::Status CudaSteps::DenseGate(const CudaLayer& layer, int tokens) const {
  return DenseProduct(layer.gate_proj, tokens, scores_);
}

absl::Status CudaSteps::DenseProduct(const void* weights, int tokens,
                                     float* out) const {
  return InParts(tokens, [&](int first, int count) {
    return cublas_->ProductWithRows(
        model_.element, count, intermediate_size_, hidden_size_,
        hidden_states(first), weights,
        out + static_cast<size_t>(first) * intermediate_size_);
  });
}

absl::Status CudaSteps::Select(int tokens, int output_size) {
  SelectActiveParams params;
  FillBegin(&params);
  params.scores = scores_;
  params.union_list = union_list_;
  params.output_size = output_size;
  params.intermediate_size = intermediate_size_;
  params.tokens = tokens;
  params.threshold = model_.config.threshold;
  params.device = model_.device_traits;
  return Begin(LaunchSelectActive(params, stream_), "selecting active neurons");
}

void* CudaSteps::GatedLow() const {
  return reinterpret_cast<std::byte*>(gated_) +
         StepsMemory::SplitBytes(model_.config);
}

absl::Status CudaSteps::OneTokenUp(const CudaLayer& layer) const {
  OneTokenUpParams params;
  FillUp(layer, &params);
  params.list_count = counters();
  params.list = union_list_;
  params.scores = scores_;
  params.gated = gated_;
  return ToStatus(LaunchOneTokenUp(params, stream_), "step 2 of one token");
}

absl::Status CudaSteps::SparseUp(const CudaLayer& layer, int tokens) {
  if (UsesOneTokenForm(tokens)) return OneTokenUp(layer);
  absl::Status selected = Select(tokens, tokens * hidden_size_);
  if (!selected.ok()) return selected;
  GatedUpParams params;
  FillUp(layer, &params);
  params.scores = scores_;
  params.union_count = counters();
  params.union_list = union_list_;
  params.gated = gated_;
  params.gated_high = gated_;
  params.gated_low = GatedLow();
  params.tokens = tokens;
  return ToStatus(UsesBatchForm(tokens, model_.config.hidden_size)
                      ? LaunchGatedUpBatch(params, stream_)
                      : LaunchGatedUp(params, stream_),
                  "sparse up product");
}

SparseDownParams CudaSteps::DownParams(const CudaLayer& layer, int tokens,
                                       const int* list_count) const {
  SparseDownParams params;
  params.down_proj = layer.down_proj;
  params.gated = gated_;
  params.gated_high = gated_;
  params.gated_low = GatedLow();
  params.list_count = list_count;
  params.list = union_list_;
  params.output = output_;
  params.hidden_size = hidden_size_;
  params.intermediate_size = intermediate_size_;
  params.tokens = tokens;
  params.element = model_.element;
  params.device = model_.device_traits;
  return params;
}

absl::Status CudaSteps::SparseDown(const CudaLayer& layer, int tokens) const {
  const SparseDownParams params = DownParams(layer, tokens, counters());
  if (UsesOneTokenForm(tokens)) {
    return ToStatus(LaunchOneTokenDown(params, stream_), "step 3 of one token");
  }
  return ToStatus(UsesBatchForm(tokens, model_.config.hidden_size)
                      ? LaunchSparseDownBatch(params, stream_)
                      : LaunchSparseDown(params, stream_),
                  "sparse down product");
}

absl::Status CudaSteps::DenseUp(const CudaLayer& layer, int tokens) const {
  absl::Status status = DenseProduct(layer.up_proj, tokens, dense_up_);
  DenseGatedParams params;
  params.scores = scores_;
  params.up = dense_up_;
  params.gated = dense_gated_;
  params.elements = static_cast<size_t>(tokens) * intermediate_size_;
  params.clamp_up = clamp_up_;
  params.element = model_.element;
  status.Update(ToStatus(LaunchDenseGated(params, stream_), "dense gating"));
  return status;
}

absl::Status CudaSteps::DenseDown(const CudaLayer& layer, int tokens) const {
  return InParts(tokens, [&](int first, int count) {
    return cublas_->Product(
        model_.element, count, hidden_size_, intermediate_size_,
        Row(dense_gated_, first, intermediate_size_), layer.down_proj,
        output_ + static_cast<size_t>(first) * hidden_size_);
  });
}

}  // namespace sparse_ffn::cuda
