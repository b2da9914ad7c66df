// Products of bfloat16 by the processor's own instruction, for one vector
// target; included as kernels/element-inl.h is. SPARSE_FFN_BFLOAT16_PAIRS is 1
// where the target has vectors for it, else 0.
#if defined(SPARSE_FFN_KERNELS_CPU_BFLOAT16_PAIRS_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef SPARSE_FFN_KERNELS_CPU_BFLOAT16_PAIRS_INL_H_
#undef SPARSE_FFN_KERNELS_CPU_BFLOAT16_PAIRS_INL_H_
#else
#define SPARSE_FFN_KERNELS_CPU_BFLOAT16_PAIRS_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/cpu/column_pairs-inl.h"

#undef SPARSE_FFN_BFLOAT16_PAIRS
#if HWY_ARCH_X86_64 && HWY_TARGET <= HWY_AVX3
#define SPARSE_FFN_BFLOAT16_PAIRS 1
#else
#define SPARSE_FFN_BFLOAT16_PAIRS 0
#endif

#if SPARSE_FFN_BFLOAT16_PAIRS
HWY_BEFORE_NAMESPACE();
namespace sparse_ffn::cpu::HWY_NAMESPACE {

// Whether the processor has AVX512_BF16, which is not part of a target of every
// Highway that this builds with.
HWY_INLINE bool HasBFloat16Pairs() {
  return __builtin_cpu_supports("avx512bf16") != 0;
}

// The two vectors' worth of bfloat16 at `from`, 64-byte aligned.
HWY_INLINE __m512i LoadBFloat16Pairs(const uint8_t* from) {
  return _mm512_load_si512(from);
}

// sums[i] + a[2 i + 1] b[2 i + 1] + a[2 i] b[2 i]; subnormal elements, and
// subnormal sums, are taken for 0. HasBFloat16Pairs() only.
HWY_INLINE V MulAddPairs(__m512i a, __m512i b, V sums) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sums.raw) : "v"(a), "v"(b));
  return sums;
}

}  // namespace sparse_ffn::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // SPARSE_FFN_BFLOAT16_PAIRS

#endif  // SPARSE_FFN_KERNELS_CPU_BFLOAT16_PAIRS_INL_H_
