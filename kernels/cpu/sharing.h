// When several tokens are to use a row of weights together.
#ifndef SPARSE_FFN_KERNELS_CPU_SHARING_H_
#define SPARSE_FFN_KERNELS_CPU_SHARING_H_

#include <array>
#include <bit>
#include <cstddef>

#include "kernels/cpu/row_mask.h"

namespace sparse_ffn::cpu {

// needs[t], for the tokens of a group, are the rows that token t needs.
// Computing the products of all tokens with every row that one of them needs,
// so that each weight is read once, beats computing the needed ones alone,
// token by token, if those are 5 in 9 or more: by that much the kernels that
// share are the faster ones for a product.
template <size_t kTokens>
constexpr bool SharingPays(const std::array<RowMask, kTokens>& needs) {
  const auto rows = static_cast<size_t>(std::popcount(UnionOf(needs)));
  size_t products = 0;
  for (RowMask needed : needs) {
    products += static_cast<size_t>(std::popcount(needed));
  }
  return rows * kTokens * 5 <= products * 9;
}

}  // namespace sparse_ffn::cpu

#endif  // SPARSE_FFN_KERNELS_CPU_SHARING_H_
