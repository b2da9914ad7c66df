// One batch in flight on the processor. Lanes share the threads of their
// backend, step by step.
#ifndef SPARSE_FFN_KERNELS_CPU_CPU_LANE_H_
#define SPARSE_FFN_KERNELS_CPU_CPU_LANE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/cpu/aligned_memory.h"
#include "kernels/cpu/cpu_model.h"
#include "kernels/cpu/dot_kernels.h"
#include "kernels/ffn_backend.h"

namespace sparse_ffn::cpu {

class CpuLane : public FfnLane {
 public:
  // `model` must outlive the lane.
  static absl::StatusOr<std::unique_ptr<FfnLane>> New(const CpuModel& model);

  Matrix input(size_t tokens) override;
  absl::StatusOr<FfnResult> Run(int layer, size_t tokens,
                                Execution execution) override;

 private:
  explicit CpuLane(const CpuModel& model);
  // May throw std::bad_alloc.
  absl::Status Allocate();

  // Each computes for the first `tokens` rows; in this order.
  void Gate(const CpuLayer& layer, size_t tokens);
  void Up(const CpuLayer& layer, size_t tokens, FfnPath path);
  void Down(const CpuLayer& layer, size_t tokens, FfnPath path);

  // Adds what the halves of Down summed, for some columns.
  void JoinHalves(size_t tokens, size_t begin, size_t end);
  // Joins what the parts of Gate found active.
  void JoinParts(size_t tokens);
  HiddenStates hidden_states(size_t tokens) const;

  const CpuModel& model_;
  const size_t hidden_size_;
  const size_t padded_cols_;
  const DataType states_type_;
  const size_t neurons_;
  const size_t neuron_parts_;
  // Of step 3, for each half of the neurons: of one token with as many active
  // neurons in both, whose rows are best read in long pieces, and of others.
  const size_t token_column_parts_;
  const size_t batch_column_parts_;

  AlignedMemory input_;  // [max_batch_tokens, hidden_size]
  AlignedMemory x_;      // [max_batch_tokens, padded_cols], of
                         // states_type_, at most float
  // Of the lower and the upper half of the neurons:
  AlignedMemory lower_y_;              // float [max_batch_tokens, padded_cols]
  AlignedMemory upper_y_;              // likewise
  std::vector<float> output_;          // [max_batch_tokens, hidden_size]
  std::vector<float> s_;               // [max_batch_tokens, neurons]
  std::vector<float> h_;               // [max_batch_tokens, neurons]
  std::vector<uint32_t> active_;       // [max_batch_tokens]
  std::vector<uint32_t> part_active_;  // [neuron_parts, max_batch_tokens]
  std::vector<uint32_t> union_;        // [neurons], union_count_ in use
  std::vector<size_t> part_union_;     // [neuron_parts]
  size_t union_count_ = 0;
};

}  // namespace sparse_ffn::cpu

#endif  // SPARSE_FFN_KERNELS_CPU_CPU_LANE_H_
