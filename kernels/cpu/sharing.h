// When several tokens are to use a row of weights together.
#ifndef SPARSE_FFN_KERNELS_CPU_SHARING_H_
#define SPARSE_FFN_KERNELS_CPU_SHARING_H_

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

// needs[t], for the tokens of a group, are the rows that token t needs.
// Computing the products of all tokens with every row that one of them needs,
// so that each weight is read once, beats computing the needed ones alone,
// token by token, if those are 5 in 9 or more: by that much the kernels that
// share are the faster ones for a product.
template <size_t kTokens>
constexpr bool SharingPays(const std::array<RowMask, kTokens>& needs) {
  RowMask rows = 0;
  size_t products = 0;
  for (RowMask needed : needs) {
    rows |= needed;
    products += static_cast<size_t>(std::popcount(needed));
  }
  return static_cast<size_t>(std::popcount(rows)) * kTokens * 5 <= products * 9;
}

// Calls f(i) for each row i of the mask, in order.
template <typename F>
constexpr void ForEachRow(RowMask rows, F&& f) {
  for (; rows != 0; rows &= rows - 1) {
    f(static_cast<size_t>(std::countr_zero(rows)));
  }
}

}  // namespace sparse_ffn::cpu

#endif  // SPARSE_FFN_KERNELS_CPU_SHARING_H_
