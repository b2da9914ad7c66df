// The fused forms of CudaSteps.
#include <utility>

#include "kernels/cuda/cuda_steps.h"
#include "kernels/cuda/cuda_steps_memory.h"

namespace sparse_ffn::cuda {

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
  params.next_count = static_cast<int>(StepsMemory::Counters(model_.config));
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
  params.part_stride = static_cast<int>(StepsMemory::PartStride(model_.config));
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

}  // namespace sparse_ffn::cuda
