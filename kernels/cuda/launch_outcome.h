// What `done` of FusedSumParams and SmallCopyParams says of a launch.
#ifndef SPARSE_FFN_KERNELS_CUDA_LAUNCH_OUTCOME_H_
#define SPARSE_FFN_KERNELS_CUDA_LAUNCH_OUTCOME_H_

#include <cstdint>

namespace sparse_ffn::cuda {

// What `done` becomes after a launch that was not made ahead.
inline constexpr int kNotAhead = 1;

enum class LaunchOutcome : uint8_t { kPending, kRan, kLeft };

// Of the launch that is known by `number`, where `done` was found so. `later`:
// the number of a launch made ahead behind it, or 0. That one may have left
// before anybody looked, and written over what was there: then a launch made
// ahead counts as one that left, and runs again.
inline LaunchOutcome OutcomeOf(int found, int number, int later) {
  if (found == number) return LaunchOutcome::kRan;
  if (found == -number) return LaunchOutcome::kLeft;
  if (later == 0 || found != -later) return LaunchOutcome::kPending;
  return number == kNotAhead ? LaunchOutcome::kRan : LaunchOutcome::kLeft;
}

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_LAUNCH_OUTCOME_H_
