// Sets of rows of a block of weights.
#ifndef SPARSE_FFN_KERNELS_CPU_ROW_MASK_H_
#define SPARSE_FFN_KERNELS_CPU_ROW_MASK_H_

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace sparse_ffn::cpu {

// Some of the rows of a block, a bit each.
using RowMask = uint64_t;
constexpr size_t kMaskRows = 64;

// The first `count` rows, at most kMaskRows.
constexpr RowMask FirstRows(size_t count) {
  return count == kMaskRows ? ~RowMask{0} : (RowMask{1} << count) - 1;
}

// The rows of any of those sets.
template <size_t kCount>
constexpr RowMask UnionOf(const std::array<RowMask, kCount>& sets) {
  RowMask rows = 0;
  for (RowMask set : sets) rows |= set;
  return rows;
}

// Calls f(i) for each row i of the mask, in order.
template <typename F>
constexpr void ForEachRow(RowMask rows, F&& f) {
  for (; rows != 0; rows &= rows - 1) {
    f(static_cast<size_t>(std::countr_zero(rows)));
  }
}

}  // namespace sparse_ffn::cpu

#endif  // SPARSE_FFN_KERNELS_CPU_ROW_MASK_H_
