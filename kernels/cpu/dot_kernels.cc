#include "kernels/cpu/dot_kernels.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "kernels/cpu/sharing.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/dot_kernels.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/bfloat16_pairs-inl.h"
#include "kernels/cpu/column_pairs-inl.h"
#include "kernels/cpu/row_masks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparse_ffn::cpu::HWY_NAMESPACE {

// Rows that stay in the second-level cache while each token takes its own.
constexpr size_t kRowBlock = 32;
static_assert(kRowBlock <= kMaskRows);
// Tokens that share each weight.
constexpr size_t kTokenGroup = 4;
constexpr size_t kMaxRows = 8;

// Rows whose sums are made together, for a group of `tokens`. Where states are
// float32, with more sums than those of four tokens and two rows, compilers
// keep some outside of the registers.
template <DataType kStates>
constexpr size_t RowsAtATime(size_t tokens) {
  if (tokens == 1) return kMaxRows;
  if (kStates == DataType::kBFloat16) return 4;
  return tokens == 2 ? 3 : 2;
}

// Some rows of a block: addresses and places in the task's list.
struct RowList {
  std::array<const uint8_t*, kRowBlock> rows;
  std::array<uint32_t, kRowBlock> places;
  size_t count = 0;
};

size_t NeuronAt(const DotTask& task, size_t place) {
  return task.neurons == nullptr ? place : task.neurons[place];
}

// Adds the products of two vectors' worth of columns, from c on, to the sums of
// each row with each token. kType: of the weights; kStates: of the inputs.
template <DataType kType, DataType kStates, size_t kRows, size_t kTokens>
requires(kStates == DataType::kFloat32) HWY_INLINE
    void AddColumns(const uint8_t* const (&rows)[kRows],
                    const uint8_t* const (&inputs)[kTokens], size_t c,
                    V (&sums)[kRows][kTokens]) {
  const D d;
  V first[kRows];
  V second[kRows];
  for (size_t r = 0; r < kRows; ++r) {
    LoadPair<kType>(rows[r] + c * DataTypeBytes(kType), first[r], second[r]);
  }
  for (size_t t = 0; t < kTokens; ++t) {
    const auto* x = reinterpret_cast<const float*>(inputs[t]) + c;
    const V x0 = hn::Load(d, x);
    const V x1 = hn::Load(d, x + hn::Lanes(d));
    for (size_t r = 0; r < kRows; ++r) {
      sums[r][t] = hn::MulAdd(first[r], x0, sums[r][t]);
      sums[r][t] = hn::MulAdd(second[r], x1, sums[r][t]);
    }
  }
}

#if SPARSE_FFN_BFLOAT16_PAIRS
template <DataType kType, DataType kStates, size_t kRows, size_t kTokens>
requires(kStates == DataType::kBFloat16) HWY_INLINE
    void AddColumns(const uint8_t* const (&rows)[kRows],
                    const uint8_t* const (&inputs)[kTokens], size_t c,
                    V (&sums)[kRows][kTokens]) {
  static_assert(kType == DataType::kBFloat16);
  __m512i weights[kRows];
  for (size_t r = 0; r < kRows; ++r) {
    weights[r] = LoadBFloat16Pairs(rows[r] + 2 * c);
  }
  for (size_t t = 0; t < kTokens; ++t) {
    const __m512i x = LoadBFloat16Pairs(inputs[t] + 2 * c);
    for (size_t r = 0; r < kRows; ++r) {
      sums[r][t] = MulAddPairs(weights[r], x, sums[r][t]);
    }
  }
}
#endif

// The dot products of kRows rows of `list` from `at` on with kTokens tokens.
template <DataType kType, DataType kStates, size_t kRows, size_t kTokens>
HWY_INLINE void DotTile(const DotTask& task, const RowList& list, size_t at,
                        size_t first_token) {
  const D d;
  const uint8_t* rows[kRows];
  const uint8_t* inputs[kTokens];
  V sums[kRows][kTokens];
  for (size_t t = 0; t < kTokens; ++t) inputs[t] = task.x.row(first_token + t);
  for (size_t r = 0; r < kRows; ++r) {
    rows[r] = list.rows[at + r];
    for (size_t t = 0; t < kTokens; ++t) sums[r][t] = hn::Zero(d);
  }
  for (size_t c = 0; c < task.x.padded_cols; c += 2 * hn::Lanes(d)) {
    AddColumns<kType, kStates>(rows, inputs, c, sums);
  }
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t t = 0; t < kTokens; ++t) {
      task.sums[(first_token + t) * task.stride + list.places[at + r]] =
          hn::GetLane(hn::SumOfLanes(d, sums[r][t]));
    }
  }
}

// The rows of the list from `at` on: kRows at a time, then fewer.
template <DataType kType, DataType kStates, size_t kRows, size_t kTokens>
HWY_INLINE void DotList(const DotTask& task, const RowList& list, size_t at,
                        size_t first_token) {
  for (; at + kRows <= list.count; at += kRows) {
    DotTile<kType, kStates, kRows, kTokens>(task, list, at, first_token);
  }
  if constexpr (kRows > 1) {
    DotList<kType, kStates, kRows / 2, kTokens>(task, list, at, first_token);
  }
}

// Those of the rows at the places [begin, end) that a token needs.
RowMask NeededRows(const DotTask& task, size_t token, size_t begin,
                   size_t end) {
  if (task.scores == nullptr) return FirstRows(end - begin);
  const float* scores = task.scores + token * task.stride;
  return task.neurons == nullptr
             ? NonZero(scores + begin, end - begin)
             : NonZeroAt(scores, task.neurons + begin, end - begin);
}

// `rows` of those at the places from `begin` on.
void ListRows(const DotTask& task, size_t begin, RowMask rows, RowList& list) {
  list.count = 0;
  ForEachRow(rows, [&](size_t i) {
    list.rows[list.count] = task.weights.row(NeuronAt(task, begin + i));
    list.places[list.count] = static_cast<uint32_t>(begin + i);
    ++list.count;
  });
}

// Those of the rows at the places [begin, end), at most kRowBlock, that tokens
// from `first` on need, for kTokens of them, together or one by one.
template <DataType kType, DataType kStates, size_t kTokens>
void DotGroup(const DotTask& task, size_t first, size_t begin, size_t end) {
  std::array<RowMask, kTokens> needs;
  for (size_t t = 0; t < kTokens; ++t) {
    needs[t] = NeededRows(task, first + t, begin, end);
  }
  RowList list;
  if (SharingPays(needs)) {
    ListRows(task, begin, UnionOf(needs), list);
    return DotList<kType, kStates, RowsAtATime<kStates>(kTokens), kTokens>(
        task, list, 0, first);
  }
  for (size_t t = 0; t < kTokens; ++t) {
    ListRows(task, begin, needs[t], list);
    DotList<kType, kStates, RowsAtATime<kStates>(1), 1>(task, list, 0,
                                                        first + t);
  }
}

template <DataType kType, DataType kStates>
void DotBlock(const DotTask& task, size_t begin, size_t end) {
  for (size_t first = 0; first < task.x.tokens; first += kTokenGroup) {
    switch (task.x.tokens - first) {
      case 1:
        DotGroup<kType, kStates, 1>(task, first, begin, end);
        break;
      case 2:
        DotGroup<kType, kStates, 2>(task, first, begin, end);
        break;
      case 3:
        DotGroup<kType, kStates, 3>(task, first, begin, end);
        break;
      default:
        DotGroup<kType, kStates, kTokenGroup>(task, first, begin, end);
    }
  }
}

template <DataType kType, DataType kStates = DataType::kFloat32>
void DotRowsOf(const DotTask& task, size_t begin, size_t end) {
  for (size_t i = begin; i < end; i += kRowBlock) {
    DotBlock<kType, kStates>(task, i, std::min(i + kRowBlock, end));
  }
}

void DotRowsAny(const DotTask& task, size_t begin, size_t end) {
  switch (task.weights.dtype) {
    case DataType::kFloat32:
      return DotRowsOf<DataType::kFloat32>(task, begin, end);
    case DataType::kFloat16:
      return DotRowsOf<DataType::kFloat16>(task, begin, end);
    case DataType::kBFloat16:
#if SPARSE_FFN_BFLOAT16_PAIRS
      if (task.x.dtype == DataType::kBFloat16) {
        return DotRowsOf<DataType::kBFloat16, DataType::kBFloat16>(task, begin,
                                                                   end);
      }
#endif
      return DotRowsOf<DataType::kBFloat16>(task, begin, end);
  }
}

DataType StatesTypeAny([[maybe_unused]] DataType weights) {
#if SPARSE_FFN_BFLOAT16_PAIRS
  if (weights == DataType::kBFloat16 && HasBFloat16Pairs()) return weights;
#endif
  return DataType::kFloat32;
}

template <DataType kType>
void WidenRow(const uint8_t* from, size_t count, size_t padded, float* to) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  const auto widen = [&](const uint8_t* pair, size_t c) {
    V first;
    V second;
    LoadPair<kType>(pair, first, second);
    hn::Store(first, d, to + c);
    hn::Store(second, d, to + c + lanes);
  };
  size_t c = 0;
  for (; c + 2 * lanes <= count; c += 2 * lanes) {
    widen(from + c * DataTypeBytes(kType), c);
  }
  for (; c < padded; c += 2 * lanes) {
    std::array<uint8_t, 2 * hn::MaxLanes(D()) * sizeof(float)> rest = {};
    const size_t left = c < count ? count - c : 0;
    std::memcpy(rest.data(), from + (count - left) * DataTypeBytes(kType),
                left * DataTypeBytes(kType));
    widen(rest.data(), c);
  }
}

void WidenRowAny(DataType dtype, const uint8_t* from, size_t count,
                 size_t padded, float* to) {
  switch (dtype) {
    case DataType::kFloat32:
      return WidenRow<DataType::kFloat32>(from, count, padded, to);
    case DataType::kFloat16:
      return WidenRow<DataType::kFloat16>(from, count, padded, to);
    case DataType::kBFloat16:
      return WidenRow<DataType::kBFloat16>(from, count, padded, to);
  }
}

}  // namespace sparse_ffn::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparse_ffn::cpu {
namespace {

HWY_EXPORT(DotRowsAny);
HWY_EXPORT(StatesTypeAny);
HWY_EXPORT(WidenRowAny);

}  // namespace

void DotRows(const DotTask& task, size_t begin, size_t end) {
  HWY_DYNAMIC_DISPATCH(DotRowsAny)(task, begin, end);
}

DataType StatesType(DataType weights) {
  return HWY_DYNAMIC_DISPATCH(StatesTypeAny)(weights);
}

void PackStates(ConstMatrix rows, const HiddenStates& x) {
  for (size_t t = 0; t < x.tokens; ++t) {
    const auto* from = static_cast<const uint8_t*>(rows.row(t));
    uint8_t* to = x.row(t);
    if (x.dtype == DataType::kBFloat16) {
      const size_t bytes = rows.cols * DataTypeBytes(x.dtype);
      std::memcpy(to, from, bytes);
      std::memset(to + bytes, 0,
                  (x.padded_cols - rows.cols) * DataTypeBytes(x.dtype));
    } else {
      HWY_DYNAMIC_DISPATCH(WidenRowAny)
      (rows.dtype, from, rows.cols, x.padded_cols,
       reinterpret_cast<float*>(to));
    }
  }
}

}  // namespace sparse_ffn::cpu
#endif  // HWY_ONCE
