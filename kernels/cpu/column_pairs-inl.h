// Two vectors of float32 from consecutive elements of a row, for one vector
// target; included as kernels/element-inl.h is. Kernels widen weights and
// hidden states by the same function, so that it may take the columns in
// whatever order is the cheapest.
#if defined(SPARSE_FFN_KERNELS_CPU_COLUMN_PAIRS_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef SPARSE_FFN_KERNELS_CPU_COLUMN_PAIRS_INL_H_
#undef SPARSE_FFN_KERNELS_CPU_COLUMN_PAIRS_INL_H_
#else
#define SPARSE_FFN_KERNELS_CPU_COLUMN_PAIRS_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/element-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparse_ffn::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// At most the 16 floats of which the padding of a row holds a whole pair.
using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;

// The two vectors' worth of elements at `from`: of bfloat16 the even ones and
// the odd ones, which takes one instruction a vector, else the first half and
// the second.
template <DataType kType>
HWY_INLINE void LoadPair(const uint8_t* from, V& first, V& second) {
  const D d;
  if constexpr (kType == DataType::kBFloat16) {
    const hn::RebindToUnsigned<D> du;
    const auto bits = sparse_ffn::HWY_NAMESPACE::LoadAny(du, from);
    first = hn::BitCast(d, hn::ShiftLeft<16>(bits));
    second = hn::BitCast(d, hn::And(bits, hn::Set(du, 0xffff0000U)));
  } else {
    first = sparse_ffn::HWY_NAMESPACE::LoadFloats<kType>(d, from);
    second = sparse_ffn::HWY_NAMESPACE::LoadFloats<kType>(
        d, from + hn::Lanes(d) * DataTypeBytes(kType));
  }
}

// Stores a pair in the order of the columns. 64-byte aligned where the vectors
// are as long.
template <DataType kType>
HWY_INLINE void StorePairInOrder(V first, V second, float* to) {
  const D d;
  if constexpr (kType == DataType::kBFloat16) {
    hn::StoreInterleaved2(first, second, d, to);
  } else {
    hn::Store(first, d, to);
    hn::Store(second, d, to + hn::Lanes(d));
  }
}

}  // namespace sparse_ffn::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SPARSE_FFN_KERNELS_CPU_COLUMN_PAIRS_INL_H_
