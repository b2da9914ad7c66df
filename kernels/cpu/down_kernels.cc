#include "kernels/cpu/down_kernels.h"

#include <algorithm>
#include <array>

#include "kernels/cpu/sharing.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/down_kernels.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/column_pairs-inl.h"
#include "kernels/cpu/row_masks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparse_ffn::cpu::HWY_NAMESPACE {
constexpr size_t kMaxRows = 8;    // Added at a time.
constexpr int kPrefetchToL2 = 2;  // Third argument of __builtin_prefetch.
// With many tokens: as much of a row as lets a block of rows stay in the
// second-level cache while each token takes its own.
constexpr size_t kTileCols = 2048;
constexpr size_t kRowBlock = 64;
static_assert(kRowBlock <= kMaskRows);
// Tokens that share each weight.
constexpr size_t kTokenGroup = 4;

// Brings columns from the order of LoadPair into their own. Adding 0 leaves
// only one kind of zero, whether zeros were added to it or not.
template <DataType kType>
void PutInOrder(float* row, size_t begin, size_t end) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  for (size_t c = begin; c < end; c += 2 * lanes) {
    StorePairInOrder<kType>(hn::Add(hn::Load(d, row + c), hn::Zero(d)),
                            hn::Add(hn::Load(d, row + c + lanes), hn::Zero(d)),
                            row + c);
  }
}

struct Range {
  size_t begin;
  size_t end;
};

// The rows of one block that a group of tokens needs, with their scales.
struct ScaledRows {
  std::array<const uint8_t*, kRowBlock> rows;
  std::array<std::array<float, kTokenGroup>, kRowBlock> scales;
  size_t count = 0;
};

// Adds kRows rows of `list` from `at` on to the columns of kTokens outputs, and
// fetches the rows after them, which the processor cannot guess.
template <DataType kType, size_t kRows, size_t kTokens>
HWY_INLINE void AddRows(const ScaledRows& list, size_t at, Range cols,
                        float* output, size_t stride) {
  constexpr size_t kBytes = DataTypeBytes(kType);
  const D d;
  const size_t lanes = hn::Lanes(d);
  const uint8_t* rows[kRows];
  const uint8_t* next[kRows];
  V scales[kRows];  // Of one token; those of more do not fit the registers.
  for (size_t r = 0; r < kRows; ++r) {
    scales[r] = hn::Set(d, list.scales[at + r][0]);
    rows[r] = list.rows[at + r];
    next[r] = list.rows[std::min(at + r + kRows, list.count - 1)];
  }
  for (size_t c = cols.begin; c < cols.end; c += 2 * lanes) {
    V sums[kTokens][2];
    for (size_t t = 0; t < kTokens; ++t) {
      sums[t][0] = hn::Load(d, output + t * stride + c);
      sums[t][1] = hn::Load(d, output + t * stride + c + lanes);
    }
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t b = 0; b < 2 * lanes * kBytes; b += kAlignmentBytes) {
        __builtin_prefetch(next[r] + c * kBytes + b, 0, kPrefetchToL2);
      }
      V first;
      V second;
      LoadPair<kType>(rows[r] + c * kBytes, first, second);
      for (size_t t = 0; t < kTokens; ++t) {
        const V scale =
            kTokens == 1 ? scales[r] : hn::Set(d, list.scales[at + r][t]);
        sums[t][0] = hn::MulAdd(scale, first, sums[t][0]);
        sums[t][1] = hn::MulAdd(scale, second, sums[t][1]);
      }
    }
    for (size_t t = 0; t < kTokens; ++t) {
      hn::Store(sums[t][0], d, output + t * stride + c);
      hn::Store(sums[t][1], d, output + t * stride + c + lanes);
    }
  }
}

// The rows of the list from `at` on: kRows at a time, then fewer.
template <DataType kType, size_t kRows, size_t kTokens>
HWY_INLINE void AddList(const ScaledRows& list, size_t at, Range cols,
                        float* output, size_t stride) {
  for (; at + kRows <= list.count; at += kRows) {
    AddRows<kType, kRows, kTokens>(list, at, cols, output, stride);
  }
  if constexpr (kRows > 1) {
    AddList<kType, kRows / 2, kTokens>(list, at, cols, output, stride);
  }
}

// Those of the rows at the places [begin, end) that a token needs.
RowMask NeededRows(const DownTask& task, size_t token, Range block) {
  const size_t count = block.end - block.begin;
  if (!task.skip_zeros) return FirstRows(count);
  return NonZero(task.gated + token * task.gated_stride + block.begin, count);
}

// `rows` of those at the places from `begin` on, with the scales of kTokens
// tokens from `first` on.
template <size_t kTokens>
void ListRows(const DownTask& task, size_t first, size_t begin, RowMask rows,
              ScaledRows& list) {
  const float* gated = task.gated + first * task.gated_stride + begin;
  list.count = 0;
  ForEachRow(rows, [&](size_t i) {
    const size_t place = begin + i;
    list.rows[list.count] = task.weights.row(
        task.neurons == nullptr ? place : size_t{task.neurons[place]});
    for (size_t t = 0; t < kTokens; ++t) {
      list.scales[list.count][t] = gated[t * task.gated_stride + i];
    }
    ++list.count;
  });
}

// Adds the rows at the places of `block`, at most kRowBlock, to the columns of
// kTokens outputs from `first` on, together or one by one. `list` is for lists
// of them.
template <DataType kType, size_t kTokens>
void AddGroup(const DownTask& task, size_t first, Range block, Range cols,
              ScaledRows& list) {
  // Else 0 times a row that a token does not need might be NaN.
  const bool may_share = !task.skip_zeros || task.weights.finite;
  const size_t stride = task.weights.padded_cols;
  std::array<RowMask, kTokens> needs;
  for (size_t t = 0; t < kTokens; ++t) {
    needs[t] = NeededRows(task, first + t, block);
  }
  if (kTokens == 1 || (may_share && SharingPays(needs))) {
    ListRows<kTokens>(task, first, block.begin, UnionOf(needs), list);
    return AddList<kType, kMaxRows, kTokens>(
        list, 0, cols, task.output + first * stride, stride);
  }
  for (size_t t = first; t < first + kTokens; ++t) {
    ListRows<1>(task, t, block.begin, needs[t - first], list);
    AddList<kType, kMaxRows, 1>(list, 0, cols, task.output + t * stride,
                                stride);
  }
}

template <DataType kType>
void AddBlock(const DownTask& task, Range block, Range cols, ScaledRows& list) {
  for (size_t first = 0; first < task.tokens; first += kTokenGroup) {
    switch (task.tokens - first) {
      case 1:
        AddGroup<kType, 1>(task, first, block, cols, list);
        break;
      case 2:
        AddGroup<kType, 2>(task, first, block, cols, list);
        break;
      case 3:
        AddGroup<kType, 3>(task, first, block, cols, list);
        break;
      default:
        AddGroup<kType, kTokenGroup>(task, first, block, cols, list);
    }
  }
}

template <DataType kType>
void SumTile(const DownTask& task, size_t begin, size_t end) {
  const size_t stride = task.weights.padded_cols;
  for (size_t t = 0; t < task.tokens; ++t) {
    std::fill(task.output + t * stride + begin, task.output + t * stride + end,
              0.0F);
  }
  ScaledRows list = {};  // Of each block in turn.
  for (size_t block = task.first; block < task.end; block += kRowBlock) {
    const size_t block_end = std::min(block + kRowBlock, task.end);
    AddBlock<kType>(task, {block, block_end}, {begin, end}, list);
  }
  for (size_t t = 0; t < task.tokens; ++t) {
    PutInOrder<kType>(task.output + t * stride, begin, end);
  }
}

template <DataType kType>
void SumRowsOf(const DownTask& task, size_t begin, size_t end) {
  const size_t tile = task.tokens == 1 ? end - begin : kTileCols;
  for (size_t c = begin; c < end; c += tile) {
    SumTile<kType>(task, c, std::min(c + tile, end));
  }
}

void SumRowsAny(const DownTask& task, size_t begin, size_t end) {
  switch (task.weights.dtype) {
    case DataType::kFloat32:
      return SumRowsOf<DataType::kFloat32>(task, begin, end);
    case DataType::kFloat16:
      return SumRowsOf<DataType::kFloat16>(task, begin, end);
    case DataType::kBFloat16:
      return SumRowsOf<DataType::kBFloat16>(task, begin, end);
  }
}

}  // namespace sparse_ffn::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparse_ffn::cpu {
namespace {

HWY_EXPORT(SumRowsAny);

}  // namespace

void SumRows(const DownTask& task, size_t begin, size_t end) {
  HWY_DYNAMIC_DISPATCH(SumRowsAny)(task, begin, end);
}

}  // namespace sparse_ffn::cpu
#endif  // HWY_ONCE
