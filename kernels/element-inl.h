// Vectors of float32 from and to memory of any element type, for one vector
// target. Included once per target, after hwy/highway.h, by files that compile
// themselves through hwy/foreach_target.h.
//
// Results are the same, bit for bit, on every target: round to nearest even,
// subnormals kept, NaN made quiet with the upper bits of its payload wherever
// float16 is involved.
#if defined(SPARSE_FFN_KERNELS_ELEMENT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SPARSE_FFN_KERNELS_ELEMENT_INL_H_
#undef SPARSE_FFN_KERNELS_ELEMENT_INL_H_
#else
#define SPARSE_FFN_KERNELS_ELEMENT_INL_H_
#endif

#include <cstring>

#include "hwy/highway.h"
#include "kernels/matrix.h"

HWY_BEFORE_NAMESPACE();
namespace sparse_ffn::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Whether the target's own float16 conversion handles every value.
constexpr bool kNativeHalf = HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2;

template <class D>
using Bits = hn::RebindToUnsigned<D>;
template <class D>
using HalfBits = hn::Rebind<uint16_t, D>;

// Any alignment, also where the target has no vectors.
template <class D>
HWY_INLINE hn::Vec<D> LoadAny(D d, const uint8_t* from) {
  using T = hn::TFromD<D>;
  if constexpr (hn::MaxLanes(D()) == 1) {
    T value;
    std::memcpy(&value, from, sizeof(value));
    return hn::Set(d, value);
  } else {
    return hn::LoadU(d, reinterpret_cast<const T*>(from));
  }
}

template <class D>
HWY_INLINE void StoreAny(D d, hn::Vec<D> vector, uint8_t* to) {
  using T = hn::TFromD<D>;
  if constexpr (hn::MaxLanes(D()) == 1) {
    const T value = hn::GetLane(vector);
    std::memcpy(to, &value, sizeof(value));
  } else {
    hn::StoreU(vector, d, reinterpret_cast<T*>(to));
  }
}

template <class D>
HWY_INLINE void StoreHalfBits(D, hn::Vec<Bits<D>> bits, uint8_t* to) {
  const HalfBits<D> d16;
  const hn::RebindToSigned<D> di32;
  StoreAny(d16, hn::DemoteTo(d16, hn::BitCast(di32, bits)), to);
}

template <class D>
HWY_INLINE hn::Vec<D> FloatFromHalf(D d, hn::Vec<HalfBits<D>> half) {
  const Bits<D> du;
  const auto bits = hn::PromoteTo(du, half);
  const auto magnitude = hn::And(bits, hn::Set(du, 0x7fff));
  const auto sign = hn::ShiftLeft<16>(hn::Xor(bits, magnitude));
  const auto shifted = hn::ShiftLeft<13>(magnitude);
  // The exponent counts from 15 and not 127; 2^112 makes up for it, and
  // normalises subnormals.
  const auto scale = hn::BitCast(d, hn::Set(du, (127U + 112U) << 23));
  const auto finite = hn::BitCast(du, hn::Mul(hn::BitCast(d, shifted), scale));
  const auto is_special = hn::Gt(magnitude, hn::Set(du, 0x7bff));
  const auto is_nan = hn::Gt(magnitude, hn::Set(du, 0x7c00));
  const auto quiet = hn::IfThenElseZero(is_nan, hn::Set(du, 0x00400000U));
  const auto special = hn::Or(hn::Or(shifted, hn::Set(du, 0x7f800000U)), quiet);
  return hn::BitCast(d,
                     hn::Or(sign, hn::IfThenElse(is_special, special, finite)));
}

template <class D>
HWY_INLINE hn::Vec<Bits<D>> HalfFromFloat(D d, hn::Vec<D> value) {
  const Bits<D> du;
  const auto bits = hn::BitCast(du, value);
  const auto magnitude = hn::And(bits, hn::Set(du, 0x7fffffffU));
  const auto sign = hn::ShiftRight<16>(hn::Xor(bits, magnitude));
  // Exponent from 127 to 15, plus half of the last place, less one if even.
  const auto odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(du, 1));
  const auto rounded =
      hn::Add(hn::Sub(magnitude, hn::Set(du, (112U << 23) - 0xfffU)), odd);
  const auto normal = hn::ShiftRight<13>(rounded);
  // Adding 0.5 leaves a subnormal, rounded, in the low bits.
  const auto half = hn::Set(du, 126U << 23);
  const auto sum = hn::Add(hn::BitCast(d, magnitude), hn::BitCast(d, half));
  const auto subnormal = hn::Sub(hn::BitCast(du, sum), half);
  const auto payload =
      hn::And(hn::ShiftRight<13>(magnitude), hn::Set(du, 0x3ff));
  const auto is_nan = hn::Gt(magnitude, hn::Set(du, 0x7f800000U));
  const auto quiet =
      hn::IfThenElseZero(is_nan, hn::Or(payload, hn::Set(du, 0x200)));
  const auto special = hn::Or(hn::Set(du, 0x7c00), quiet);
  const auto is_normal = hn::Gt(magnitude, hn::Set(du, (113U << 23) - 1));
  const auto is_special = hn::Gt(magnitude, hn::Set(du, (143U << 23) - 1));
  const auto finite = hn::IfThenElse(is_normal, normal, subnormal);
  return hn::Or(sign, hn::IfThenElse(is_special, special, finite));
}

template <class D>
HWY_INLINE hn::Vec<Bits<D>> BFloat16FromFloat(D, hn::Vec<D> value) {
  const Bits<D> du;
  const auto bits = hn::BitCast(du, value);
  const auto magnitude = hn::And(bits, hn::Set(du, 0x7fffffffU));
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  const auto rounded = hn::Add(hn::Add(bits, hn::Set(du, 0x7fffU)), odd);
  const auto quiet = hn::Or(bits, hn::Set(du, 0x00400000U));
  const auto is_nan = hn::Gt(magnitude, hn::Set(du, 0x7f800000U));
  return hn::ShiftRight<16>(hn::IfThenElse(is_nan, quiet, rounded));
}

// Lanes(d) elements of type kType at `from`, any alignment.
template <DataType kType, class D>
HWY_INLINE hn::Vec<D> LoadFloats(D d, const uint8_t* from) {
  const HalfBits<D> d16;
  if constexpr (kType == DataType::kFloat32) {
    return LoadAny(d, from);
  } else if constexpr (kType == DataType::kBFloat16) {
    const Bits<D> du;
    const auto bits = hn::PromoteTo(du, LoadAny(d16, from));
    return hn::BitCast(d, hn::ShiftLeft<16>(bits));
  } else if constexpr (kNativeHalf) {
    const hn::Rebind<hwy::float16_t, D> df16;
    return hn::PromoteTo(d, hn::BitCast(df16, LoadAny(d16, from)));
  } else {
    return FloatFromHalf(d, LoadAny(d16, from));
  }
}

// Lanes(d) elements of type kType to `to`, any alignment.
template <DataType kType, class D>
HWY_INLINE void StoreFloats(D d, hn::Vec<D> value, uint8_t* to) {
  const HalfBits<D> d16;
  if constexpr (kType == DataType::kFloat32) {
    StoreAny(d, value, to);
  } else if constexpr (kType == DataType::kBFloat16) {
    StoreHalfBits(d, BFloat16FromFloat(d, value), to);
  } else if constexpr (kNativeHalf) {
    const hn::Rebind<hwy::float16_t, D> df16;
    StoreAny(d16, hn::BitCast(d16, hn::DemoteTo(df16, value)), to);
  } else {
    StoreHalfBits(d, HalfFromFloat(d, value), to);
  }
}

}  // namespace sparse_ffn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SPARSE_FFN_KERNELS_ELEMENT_INL_H_
