// When several tokens are to use a row of weights together.
#ifndef SPARSE_FFN_KERNELS_CPU_SHARING_H_
#define SPARSE_FFN_KERNELS_CPU_SHARING_H_

#include <cstddef>
#include <cstdint>

namespace sparse_ffn::cpu {

// needs[i], for i in [0, count), is how many of a group of `tokens` need row i.
// Computing the products of all tokens with every row that one of them needs,
// so that each weight is read once, beats computing the needed ones alone,
// token by token, if those are 5 in 9 or more: by that much the kernels that
// share are the faster ones for a product.
constexpr bool SharingPays(const uint32_t* needs, size_t count, size_t tokens) {
  size_t rows = 0;
  size_t products = 0;
  for (size_t i = 0; i < count; ++i) {
    rows += needs[i] != 0 ? 1 : 0;
    products += needs[i];
  }
  return rows * tokens * 5 <= products * 9;
}

}  // namespace sparse_ffn::cpu

#endif  // SPARSE_FFN_KERNELS_CPU_SHARING_H_
