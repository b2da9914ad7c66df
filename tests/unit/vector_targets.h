// The vector targets of Highway that a test can walk through.
#ifndef SPARSE_FFN_TESTS_UNIT_VECTOR_TARGETS_H_
#define SPARSE_FFN_TESTS_UNIT_VECTOR_TARGETS_H_

#include <cstdint>
#include <vector>

#include "hwy/targets.h"

namespace sparse_ffn {

// Those that this processor has, the best one first; for
// hwy::SetSupportedTargetsForTest.
inline std::vector<int64_t> VectorTargets() {
  std::vector<int64_t> targets;
  for (int64_t left = hwy::SupportedTargets() & HWY_TARGETS; left != 0;
       left &= left - 1) {
    targets.push_back(left & -left);
  }
  return targets;
}

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_TESTS_UNIT_VECTOR_TARGETS_H_
