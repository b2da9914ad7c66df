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

absl::Status CudaSteps::FusedBatch(const CudaLayer& layer, int tokens) {
  FusedGatedUpParams params;
  BeginBatch(&params);
  FillFused(layer, tokens, &params);
  int* gated_count = counters() + 1 + model_.config.max_batch_tokens;
  params.gated_count = gated_count;
  params.gated_list = union_list_;
  params.gated_high = gated_;
  params.gated_low = GatedLow();
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
  params.part_stride = static_cast<int>(StepsMemory::PartStride(model_.config));
  absl::Status status = ToStatus(UsesFusedBulk(model_, tokens)
                                     ? LaunchFusedBulk(params, stream_)
                                     : LaunchFusedPortable(params, stream_),
                                 "fused FFN");
  if (!status.ok()) return status;  // Nobody is told that it is done.
  FusedSumParams sum;
  sum.parts = parts_;
  sum.active = part_active_;
  sum.output = buffers.output;
  sum.counters = buffers.counters;
  sum.done = buffers.done;
  sum.state = fused_state_;
  sum.blocks = FusedBlocks(model_.device_traits, intermediate_size_);
  sum.part_stride = params.part_stride;
  sum.hidden_size = hidden_size_;
  sum.tokens = tokens;
  sum.device = model_.device_traits;
  return ToStatus(LaunchFusedSum(sum, stream_), "sum of the fused FFN");
}

}  // namespace sparse_ffn::cuda
