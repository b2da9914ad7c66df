// Row masks of the values that are not 0, for one vector target; included as
// kernels/element-inl.h is.
#if defined(SPARSE_FFN_KERNELS_CPU_ROW_MASKS_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef SPARSE_FFN_KERNELS_CPU_ROW_MASKS_INL_H_
#undef SPARSE_FFN_KERNELS_CPU_ROW_MASKS_INL_H_
#else
#define SPARSE_FFN_KERNELS_CPU_ROW_MASKS_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu/row_mask.h"

HWY_BEFORE_NAMESPACE();
namespace sparse_ffn::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Bit i: whether value_of(i) is other than 0, true of NaN, for i < count <=
// kMaskRows. load(i) is a vector of them.
template <class Tag, typename Load, typename ValueOf>
HWY_INLINE RowMask NonZeroBits(Tag d, size_t count, const Load& load,
                               const ValueOf& value_of) {
  const size_t lanes = hn::Lanes(d);
  RowMask mask = 0;
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    uint8_t bytes[8] = {};
    // Ne is false of NaN on some targets.
    hn::StoreMaskBits(d, hn::Not(hn::Eq(load(i), hn::Zero(d))), bytes);
    RowMask bits = 0;
    for (size_t b = 0; b < (lanes + 7) / 8; ++b) {
      bits |= RowMask{bytes[b]} << (8 * b);
    }
    mask |= bits << i;
  }
  for (; i < count; ++i) mask |= RowMask{value_of(i) != 0 ? 1U : 0U} << i;
  return mask;
}

// Of values side by side.
HWY_INLINE RowMask NonZero(const float* values, size_t count) {
  const hn::CappedTag<float, 16> d;
  return NonZeroBits(
      d, count, [&](size_t i) HWY_ATTR { return hn::LoadU(d, values + i); },
      [&](size_t i) { return values[i]; });
}

// Of values[indexes[i]].
HWY_INLINE RowMask NonZeroAt(const float* values, const uint32_t* indexes,
                             size_t count) {
  const hn::CappedTag<float, 16> d;
  const hn::RebindToSigned<decltype(d)> di;
  return NonZeroBits(
      d, count,
      [&](size_t i) HWY_ATTR {
        const auto* at = reinterpret_cast<const int32_t*>(indexes + i);
        return hn::GatherIndex(d, values, hn::LoadU(di, at));
      },
      [&](size_t i) { return values[indexes[i]]; });
}

}  // namespace sparse_ffn::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SPARSE_FFN_KERNELS_CPU_ROW_MASKS_INL_H_
