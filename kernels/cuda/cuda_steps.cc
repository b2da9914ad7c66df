#include "kernels/cuda/cuda_steps.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "kernels/cuda/path_choice.h"

namespace sparse_ffn::cuda {
namespace {

static_assert(kMaxBatchFormTokens == kBatchFormTokens);
static_assert(kMaxOneKernelTokens == kOneKernelTokens);

// Of one of the two parts that the batch form's gated neurons are split in.
size_t SplitBytes(const FfnConfig& config) {
  return AlignUp(kMaxBatchFormTokens * config.intermediate_size *
                 sizeof(uint16_t));
}

// Of a batch: the union's, each token's, that of the fused batch's list.
size_t Counters(const FfnConfig& config) { return 2 + config.max_batch_tokens; }

// Columns of a part of the output that a fused launch leaves.
size_t PartStride(const FfnConfig& config) {
  return (config.hidden_size + 3) / 4 * 4;
}

// Bytes of each buffer, in the order in which they lie in memory.
struct Sizes {
  size_t hidden_states, scores, union_list, gated, dense_up, parts, part_active,
      result;

  Sizes(const FfnConfig& config, int sm_count) {
    const size_t tokens = config.max_batch_tokens;
    const size_t n = config.intermediate_size;
    hidden_states = AlignUp(tokens * config.hidden_size *
                            DataTypeBytes(config.weights_dtype));
    scores = AlignUp(tokens * n * sizeof(float));
    union_list = AlignUp(n * sizeof(int));
    gated = std::max(scores, 2 * SplitBytes(config));
    dense_up = scores;
    const size_t blocks = sm_count;
    parts =
        AlignUp(blocks * kOneKernelTokens * PartStride(config) * sizeof(float));
    part_active = AlignUp(blocks * (1 + kOneKernelTokens) * sizeof(int));
    result = CudaSteps::CounterBytes(config) +
             AlignUp(tokens * config.hidden_size * sizeof(float));
  }
  size_t total() const {
    return hidden_states + scores + union_list + gated + dense_up + parts +
           part_active + result;
  }
};

}  // namespace

size_t CudaSteps::CounterBytes(const FfnConfig& config) {
  return AlignUp(2 * Counters(config) * sizeof(int));
}

size_t CudaSteps::DeviceBytes(const FfnConfig& config, int sm_count) {
  return Sizes(config, sm_count).total();
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
      next_counters_(Counters(model.config) * sizeof(int)) {}

absl::StatusOr<std::unique_ptr<CudaSteps>> CudaSteps::New(
    const CudaModel& model, cudaStream_t stream) {
  std::unique_ptr<CudaSteps> steps(new CudaSteps(model, stream));
  auto cublas = Cublas::New(stream);
  if (!cublas.ok()) return cublas.status();
  steps->cublas_ = *std::move(cublas);
  const Sizes sizes(model.config, model.device_traits.sm_count);
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
  steps->result_ = take(sizes.result);
  absl::Status status = steps->PrepareKernels();
  status.Update(ToStatus(
      cudaMemsetAsync(steps->result_, 0, CounterBytes(model.config), stream),
      "clearing the counters"));
  if (!status.ok()) return status;
  steps->output_ =
      reinterpret_cast<float*>(steps->result_ + CounterBytes(model.config));
  return steps;
}

absl::Status CudaSteps::PrepareKernels() const {
  absl::Status status =
      ToStatus(PrepareGatedUpBatch(model_.element), "preparing step 2");
  status.Update(
      ToStatus(PrepareSparseDownBatch(model_.element), "preparing step 3"));
  status.Update(
      ToStatus(PrepareFusedGatedUp(model_.element, model_.device_traits,
                                   intermediate_size_),
               "preparing the fused batch"));
  for (int tokens = 1; UsesFusedBulk(model_, tokens); ++tokens) {
    status.Update(
        ToStatus(PrepareFusedBulk(model_.element, tokens, hidden_size_),
                 "preparing the fused FFN"));
  }
  return status;
}

absl::Status CudaSteps::Gate(const CudaLayer& layer, int tokens) const {
  return cublas_->ProductWithRows(model_.element, tokens, intermediate_size_,
                                  hidden_size_, hidden_states_, layer.gate_proj,
                                  scores_);
}

absl::Status CudaSteps::Select(int tokens, int output_size) {
  std::swap(counters_, next_counters_);
  SelectActiveParams params;
  params.scores = scores_;
  params.counters = counters();
  params.union_list = union_list_;
  params.next_counters = reinterpret_cast<int*>(result_ + next_counters_);
  params.output = output_;
  params.next_count = static_cast<int>(Counters(model_.config));
  params.output_size = output_size;
  params.intermediate_size = intermediate_size_;
  params.tokens = tokens;
  params.threshold = model_.config.threshold;
  params.device = model_.device_traits;
  return ToStatus(LaunchSelectActive(params, stream_),
                  "selecting active neurons");
}

void* CudaSteps::GatedLow() const {
  return reinterpret_cast<std::byte*>(gated_) + SplitBytes(model_.config);
}

absl::Status CudaSteps::OneTokenUp(const CudaLayer& layer) {
  std::swap(counters_, next_counters_);
  OneTokenUpParams params;
  params.hidden_states = hidden_states_;
  params.up_proj = layer.up_proj;
  params.scores = scores_;
  params.counters = counters();
  params.list = union_list_;
  params.gated = gated_;
  params.next_counters = reinterpret_cast<int*>(result_ + next_counters_);
  params.output = output_;
  params.next_count = static_cast<int>(Counters(model_.config));
  params.hidden_size = hidden_size_;
  params.intermediate_size = intermediate_size_;
  params.threshold = model_.config.threshold;
  params.clamp_up = clamp_up_;
  params.element = model_.element;
  params.device = model_.device_traits;
  return ToStatus(LaunchOneTokenUp(params, stream_), "step 2 of one token");
}

absl::Status CudaSteps::SparseUp(const CudaLayer& layer, int tokens) {
  if (tokens == 1 && OneTokenTakes(hidden_size_)) return OneTokenUp(layer);
  const absl::Status selected = Select(tokens, tokens * hidden_size_);
  if (!selected.ok()) return selected;
  GatedUpParams params;
  params.hidden_states = hidden_states_;
  params.up_proj = layer.up_proj;
  params.scores = scores_;
  params.union_count = counters();
  params.union_list = union_list_;
  params.gated = gated_;
  params.gated_high = gated_;
  params.gated_low = GatedLow();
  params.hidden_size = hidden_size_;
  params.intermediate_size = intermediate_size_;
  params.tokens = tokens;
  params.clamp_up = clamp_up_;
  params.element = model_.element;
  params.device = model_.device_traits;
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
  if (tokens == 1 && OneTokenTakes(hidden_size_)) {
    return ToStatus(LaunchOneTokenDown(params, stream_), "step 3 of one token");
  }
  return ToStatus(UsesBatchForm(tokens, model_.config.hidden_size)
                      ? LaunchSparseDownBatch(params, stream_)
                      : LaunchSparseDown(params, stream_),
                  "sparse down product");
}

template <typename Params>
void CudaSteps::FillFused(const CudaLayer& layer, int tokens,
                          Params* params) const {
  params->hidden_states = hidden_states_;
  params->gate_proj = layer.gate_proj;
  params->up_proj = layer.up_proj;
  params->hidden_size = hidden_size_;
  params->intermediate_size = intermediate_size_;
  params->tokens = tokens;
  params->threshold = model_.config.threshold;
  params->clamp_up = clamp_up_;
  params->element = model_.element;
  params->device = model_.device_traits;
}

absl::Status CudaSteps::FusedBatch(const CudaLayer& layer, int tokens) {
  std::swap(counters_, next_counters_);
  int* gated_count = counters() + 1 + model_.config.max_batch_tokens;
  FusedGatedUpParams params;
  FillFused(layer, tokens, &params);
  params.counters = counters();
  params.gated_count = gated_count;
  params.gated_list = union_list_;
  params.gated_high = gated_;
  params.gated_low = GatedLow();
  params.next_counters = reinterpret_cast<int*>(result_ + next_counters_);
  params.output = output_;
  params.next_count = static_cast<int>(Counters(model_.config));
  params.output_size = tokens * hidden_size_;
  absl::Status status = ToStatus(LaunchFusedGatedUp(params, stream_),
                                 "fused gate and up product");
  status.Update(ToStatus(
      LaunchSparseDownBatch(DownParams(layer, tokens, gated_count), stream_),
      "sparse down product"));
  return status;
}

bool CudaSteps::UsesFusedBulk(const CudaModel& model, int tokens) {
  return model.sparse_form != SparseForm::kFusedPortable &&
         FusedBulkTakes(model.device_traits, tokens,
                        static_cast<int>(model.config.hidden_size),
                        static_cast<int>(model.config.intermediate_size));
}

bool CudaSteps::FusesAllSteps(int tokens) const {
  return tokens == 1 || UsesFusedBulk(model_, tokens);
}

absl::Status CudaSteps::Fused(const CudaLayer& layer, int tokens, float* output,
                              int* counters) const {
  FusedTokensParams params;
  FillFused(layer, tokens, &params);
  params.down_proj = layer.down_proj;
  params.parts = parts_;
  params.active = part_active_;
  params.part_stride = static_cast<int>(PartStride(model_.config));
  absl::Status status = ToStatus(UsesFusedBulk(model_, tokens)
                                     ? LaunchFusedBulk(params, stream_)
                                     : LaunchFusedPortable(params, stream_),
                                 "fused FFN");
  FusedSumParams sum;
  sum.parts = parts_;
  sum.active = part_active_;
  sum.output = output;
  sum.counters = counters;
  sum.blocks = FusedBlocks(model_.device_traits, intermediate_size_);
  sum.part_stride = params.part_stride;
  sum.hidden_size = hidden_size_;
  sum.tokens = tokens;
  sum.device = model_.device_traits;
  status.Update(ToStatus(LaunchFusedSum(sum, stream_), "sum of the fused FFN"));
  return status;
}

absl::Status CudaSteps::DenseUp(const CudaLayer& layer, int tokens) const {
  absl::Status status = cublas_->ProductWithRows(
      model_.element, tokens, intermediate_size_, hidden_size_, hidden_states_,
      layer.up_proj, dense_up_);
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
  return cublas_->Product(model_.element, tokens, hidden_size_,
                          intermediate_size_, dense_gated_, layer.down_proj,
                          output_);
}

}  // namespace sparse_ffn::cuda
