// The fused forms of CudaSteps.
#include "kernels/cuda/cuda_steps.h"

namespace sparse_ffn::cuda {

template <typename Params>
void CudaSteps::FillFused(const CudaLayer& layer, int tokens,
                          Params* params) const {
  FillUp(layer, params);
  params->gate_proj = layer.gate_proj;
  params->tokens = tokens;
  params->threshold = model_.config.threshold;
}

absl::Status CudaSteps::FusedBatch(const CudaLayer& layer, int tokens,
                                   const FusedBuffers& buffers) {
  FusedGatedUpParams params;
  FillBegin(&params);
  FillFused(layer, tokens, &params);
  params.hidden_states = buffers.hidden_states;
  const ResultBuffers& result = buffers.result;
  int* gated_count = params.counters + 1 + model_.config.max_batch_tokens;
  const bool ordered = UsesOrderedBatch(model_);
  params.gated_count = gated_count;
  params.gated_list = union_list_;
  params.gated_high = gated_;
  params.gated_low = GatedLow();
  params.block_counts = ordered ? part_active_ : nullptr;
  params.gated = gated_;
  if (result.given()) params.output = result.output;
  params.output_size = ordered ? 0 : tokens * hidden_size_;
  params.ahead_number = buffers.ahead.number;
  params.state = fused_state_;
  absl::Status status = Begin(StreamsRows(model_, tokens, ordered)
                                  ? LaunchFusedGatedUpRows(params, stream_)
                                  : LaunchFusedGatedUp(params, stream_),
                              "fused gate and up product");
  if (!status.ok()) return status;
  if (ordered) return OrderedDown(layer, tokens, buffers);
  SparseDownParams down = DownParams(layer, tokens, gated_count);
  down.output = params.output;
  status =
      ToStatus(LaunchSparseDownBatch(down, stream_), "sparse down product");
  if (!result.given() || !status.ok()) return status;
  return CopyCounters(tokens, result.counters);
}

absl::Status CudaSteps::CopyCounters(int tokens, int* to) const {
  SmallCopyParams params;
  params.from = counters();
  params.to = to;
  params.packs = static_cast<int>(CounterStride(tokens) / 4);
  params.done = nullptr;
  params.state = fused_state_;
  params.device = model_.device_traits;
  return ToStatus(LaunchSmallCopy(params, stream_), "copying the counters");
}

absl::Status CudaSteps::OrderedDown(const CudaLayer& layer, int tokens,
                                    const FusedBuffers& buffers) const {
  OrderedDownParams params;
  params.down_proj = layer.down_proj;
  params.block_counts = part_active_;
  params.active = counters() + 1;
  params.list = union_list_;
  params.gated = gated_;
  params.parts = parts_;
  params.blocks = FusedBlocks(model_.device_traits, intermediate_size_);
  params.part_stride = static_cast<int>(StepsMemory::PartStride(model_.config));
  params.hidden_size = hidden_size_;
  params.intermediate_size = intermediate_size_;
  params.tokens = tokens;
  params.element = model_.element;
  params.device = model_.device_traits;
  absl::Status status =
      ToStatus(LaunchOrderedDown(params, stream_), "ordered down product");
  if (!status.ok()) return status;
  const ResultBuffers& result = buffers.result;
  FusedSumParams sum =
      SumParams(tokens, result.given() ? result : ResultBuffers{output_});
  // They are counted already.
  sum.active = result.given() ? counters() : nullptr;
  sum.active_count = 1;
  sum.ahead_number = buffers.ahead.number;
  sum.part_count = SumGroups(model_.device_traits.sm_count, hidden_size_);
  sum.groups = 1;
  return ToStatus(LaunchFusedSum(sum, stream_), "sum of the groups");
}

bool CudaSteps::UsesOrderedBatch(const CudaModel& model) {
  const auto hidden_size = static_cast<int>(model.config.hidden_size);
  const auto intermediate_size =
      static_cast<int>(model.config.intermediate_size);
  if (!model.config.deterministic || !UsesFusedBulk(model, 1)) return false;
  // In each of its forms or in none: all tokens are to have the same bits.
  for (int tokens : kBatchForms) {
    if (!FusedGatedUpTakes(model.device_traits, tokens, hidden_size,
                           intermediate_size, /*ordered=*/true)) {
      return false;
    }
  }
  return OrderedDownTakes(model.device_traits, hidden_size, intermediate_size);
}

size_t CudaSteps::PassTokens(const CudaModel& model) {
  if (model.config.deterministic) {
    return UsesOrderedBatch(model) ? kBatchFormTokens : 1;
  }
  // The last pass may be of any form.
  for (int tokens : kBatchForms) {
    if (!TakesFusedBatch(model, tokens)) return model.config.max_batch_tokens;
  }
  return kBatchFormTokens;
}

bool CudaSteps::StreamsRows(const CudaModel& model, int tokens, bool ordered) {
  return model.sparse_form != SparseForm::kFusedPortable &&
         FusedGatedUpRowsTakes(model.device_traits, tokens,
                               static_cast<int>(model.config.hidden_size),
                               static_cast<int>(model.config.intermediate_size),
                               ordered);
}

bool CudaSteps::TakesFusedBatch(const CudaModel& model, int tokens) {
  const bool ordered = UsesOrderedBatch(model);
  return StreamsRows(model, tokens, ordered) ||
         FusedGatedUpTakes(model.device_traits, tokens,
                           static_cast<int>(model.config.hidden_size),
                           static_cast<int>(model.config.intermediate_size),
                           ordered);
}

FusedSumParams CudaSteps::SumParams(int tokens,
                                    const ResultBuffers& result) const {
  FusedSumParams sum;
  sum.parts = parts_;
  sum.output = result.output;
  sum.counters = result.counters;
  sum.done = result.done;
  sum.state = fused_state_;
  sum.part_stride = static_cast<int>(StepsMemory::PartStride(model_.config));
  sum.hidden_size = hidden_size_;
  sum.tokens = tokens;
  sum.device = model_.device_traits;
  return sum;
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

absl::Status CudaSteps::Fused(const CudaLayer& layer, int tokens,
                              const FusedBuffers& buffers) const {
  FusedTokensParams params;
  FillFused(layer, tokens, &params);
  params.hidden_states = buffers.hidden_states;
  params.down_proj = layer.down_proj;
  params.parts = parts_;
  params.active = part_active_;
  params.passed = passed_;
  params.state = fused_state_;
  params.ahead = buffers.ahead;
  params.part_stride = static_cast<int>(StepsMemory::PartStride(model_.config));
  params.as_batch = UsesOrderedBatch(model_);
  absl::Status status = ToStatus(UsesFusedBulk(model_, tokens)
                                     ? LaunchFusedBulk(params, stream_)
                                     : LaunchFusedPortable(params, stream_),
                                 "fused FFN");
  if (!status.ok()) return status;
  FusedSumParams sum = SumParams(tokens, buffers.result);
  sum.active = part_active_;
  sum.ahead_number = buffers.ahead.number;
  sum.part_count = FusedBlocks(model_.device_traits, intermediate_size_);
  sum.active_count = sum.part_count;
  sum.groups = SumGroups(model_.device_traits.sm_count, hidden_size_);
  return ToStatus(LaunchFusedSum(sum, stream_), "sum of the fused FFN");
}

}  // namespace sparse_ffn::cuda
