#include "kernels/cpu/dot_kernels.h"

#include <algorithm>
#include <array>

// Vectors of unknown size cannot stand in arrays.
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/dot_kernels.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/element-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparse_ffn::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace element = sparse_ffn::HWY_NAMESPACE;

// At most the 16 floats that the padding of a row allows.
using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;

constexpr size_t kRowsOfOneToken = 4;
constexpr size_t kRowsOfManyTokens = 2;
constexpr size_t kTokenBlock = 4;
// Rows that stay in the second-level cache while each token takes its own.
constexpr size_t kActiveBlock = 32;

using Rows = std::array<const uint8_t*, kRowsOfOneToken>;
using Inputs = std::array<const float*, kTokenBlock>;
using Sums = std::array<std::array<float, kTokenBlock>, kRowsOfOneToken>;

template <DataType kType, size_t kRows, size_t kTokens>
HWY_INLINE void DotBlock(const Rows& rows, const Inputs& inputs, size_t cols,
                         Sums& out) {
  const D d;
  V sums[kRows][kTokens];
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t t = 0; t < kTokens; ++t) sums[r][t] = hn::Zero(d);
  }
  const size_t lanes = hn::Lanes(d);
  for (size_t c = 0; c < cols; c += lanes) {
    V weights[kRows];
    for (size_t r = 0; r < kRows; ++r) {
      weights[r] =
          element::LoadFloats<kType>(d, rows[r] + c * DataTypeBytes(kType));
    }
    for (size_t t = 0; t < kTokens; ++t) {
      const V x = hn::Load(d, inputs[t] + c);
      for (size_t r = 0; r < kRows; ++r) {
        sums[r][t] = hn::MulAdd(weights[r], x, sums[r][t]);
      }
    }
  }
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t t = 0; t < kTokens; ++t) {
      out[r][t] = hn::GetLane(hn::SumOfLanes(d, sums[r][t]));
    }
  }
}

template <DataType kType, size_t kRows>
void DotTokens(const Rows& rows, const Inputs& inputs, size_t tokens,
               size_t cols, Sums& out) {
  switch (tokens) {
    case 1:
      return DotBlock<kType, kRows, 1>(rows, inputs, cols, out);
    case 2:
      return DotBlock<kType, kRows, 2>(rows, inputs, cols, out);
    case 3:
      return DotBlock<kType, kRows, 3>(rows, inputs, cols, out);
    default:
      return DotBlock<kType, kRows, 4>(rows, inputs, cols, out);
  }
}

template <DataType kType, size_t kRows>
HWY_INLINE void DotRowsAllTokens(const PackedMatrix& weights,
                                 const HiddenStates& x, size_t first,
                                 float* scores, size_t scores_stride) {
  Rows rows = {};
  for (size_t r = 0; r < kRows; ++r) rows[r] = weights.row(first + r);
  Inputs inputs = {};
  Sums sums;
  for (size_t t = 0; t < x.tokens; t += kTokenBlock) {
    const size_t count = std::min(kTokenBlock, x.tokens - t);
    for (size_t i = 0; i < count; ++i) inputs[i] = x.row(t + i);
    DotTokens<kType, kRows>(rows, inputs, count, x.padded_cols, sums);
    for (size_t i = 0; i < count; ++i) {
      for (size_t r = 0; r < kRows; ++r) {
        scores[(t + i) * scores_stride + first + r] = sums[r][i];
      }
    }
  }
}

template <DataType kType>
void DotAllOf(const PackedMatrix& weights, const HiddenStates& x, size_t begin,
              size_t end, float* scores, size_t scores_stride) {
  size_t j = begin;
  if (x.tokens == 1) {
    for (; j + kRowsOfOneToken <= end; j += kRowsOfOneToken) {
      DotRowsAllTokens<kType, kRowsOfOneToken>(weights, x, j, scores,
                                               scores_stride);
    }
  } else {
    for (; j + kRowsOfManyTokens <= end; j += kRowsOfManyTokens) {
      DotRowsAllTokens<kType, kRowsOfManyTokens>(weights, x, j, scores,
                                                 scores_stride);
    }
  }
  for (; j < end; ++j) {
    DotRowsAllTokens<kType, 1>(weights, x, j, scores, scores_stride);
  }
}

void DotAllAny(const PackedMatrix& weights, const HiddenStates& x, size_t begin,
               size_t end, float* scores, size_t scores_stride) {
  switch (weights.dtype) {
    case DataType::kFloat32:
      return DotAllOf<DataType::kFloat32>(weights, x, begin, end, scores,
                                          scores_stride);
    case DataType::kFloat16:
      return DotAllOf<DataType::kFloat16>(weights, x, begin, end, scores,
                                          scores_stride);
    case DataType::kBFloat16:
      return DotAllOf<DataType::kBFloat16>(weights, x, begin, end, scores,
                                           scores_stride);
  }
}

template <DataType kType>
HWY_INLINE void DotOneToken(const PackedMatrix& weights, const float* x,
                            const ActiveDots& dots, float* sums,
                            const uint32_t* places, size_t count) {
  Rows rows = {};
  for (size_t r = 0; r < count; ++r) {
    rows[r] = weights.row(dots.neurons[places[r]]);
  }
  Sums out;
  const Inputs inputs = {x};
  switch (count) {
    case 1:
      DotBlock<kType, 1, 1>(rows, inputs, weights.padded_cols, out);
      break;
    case 2:
      DotBlock<kType, 2, 1>(rows, inputs, weights.padded_cols, out);
      break;
    case 3:
      DotBlock<kType, 3, 1>(rows, inputs, weights.padded_cols, out);
      break;
    default:
      DotBlock<kType, 4, 1>(rows, inputs, weights.padded_cols, out);
      break;
  }
  for (size_t r = 0; r < count; ++r) sums[places[r]] = out[r][0];
}

template <DataType kType>
void DotActiveOf(const PackedMatrix& weights, const HiddenStates& x,
                 const ActiveDots& dots, size_t begin, size_t end) {
  for (size_t block = begin; block < end; block += kActiveBlock) {
    const size_t block_end = std::min(block + kActiveBlock, end);
    for (size_t t = 0; t < x.tokens; ++t) {
      const float* scores = dots.scores + t * dots.stride;
      float* sums = dots.sums + t * dots.stride;
      std::array<uint32_t, kActiveBlock> places;
      size_t count = 0;
      for (size_t i = block; i < block_end; ++i) {
        sums[i] = 0;
        if (scores[dots.neurons[i]] != 0) {
          places[count++] = static_cast<uint32_t>(i);
        }
      }
      for (size_t p = 0; p < count; p += kRowsOfOneToken) {
        DotOneToken<kType>(weights, x.row(t), dots, sums, &places[p],
                           std::min(kRowsOfOneToken, count - p));
      }
    }
  }
}

void DotActiveAny(const PackedMatrix& weights, const HiddenStates& x,
                  const ActiveDots& dots, size_t begin, size_t end) {
  switch (weights.dtype) {
    case DataType::kFloat32:
      return DotActiveOf<DataType::kFloat32>(weights, x, dots, begin, end);
    case DataType::kFloat16:
      return DotActiveOf<DataType::kFloat16>(weights, x, dots, begin, end);
    case DataType::kBFloat16:
      return DotActiveOf<DataType::kBFloat16>(weights, x, dots, begin, end);
  }
}

}  // namespace sparse_ffn::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparse_ffn::cpu {
namespace {

HWY_EXPORT(DotAllAny);
HWY_EXPORT(DotActiveAny);

}  // namespace

void DotAll(const PackedMatrix& weights, const HiddenStates& x, size_t begin,
            size_t end, float* scores, size_t scores_stride) {
  HWY_DYNAMIC_DISPATCH(DotAllAny)
  (weights, x, begin, end, scores, scores_stride);
}

void DotActive(const PackedMatrix& weights, const HiddenStates& x,
               const ActiveDots& dots, size_t begin, size_t end) {
  HWY_DYNAMIC_DISPATCH(DotActiveAny)(weights, x, dots, begin, end);
}

}  // namespace sparse_ffn::cpu
#endif  // HWY_ONCE
