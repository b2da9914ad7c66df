#include "kernels/cpu/down_kernels.h"

#include <algorithm>
#include <array>

// Vectors of unknown size cannot stand in arrays.
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/down_kernels.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/element-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparse_ffn::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace element = sparse_ffn::HWY_NAMESPACE;

using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;

constexpr size_t kRowGroup = 8;
constexpr int kPrefetchToL2 = 2;  // Third argument of __builtin_prefetch.
// With many tokens: as much of a row as lets a block of rows stay in the
// second-level cache while each token takes its own.
constexpr size_t kTileCols = 1024;
constexpr size_t kRowBlock = 64;

// The rows of one block that a token needs, with their scales.
struct Group {
  std::array<const uint8_t*, kRowBlock> rows;
  std::array<float, kRowBlock> scales;
  size_t count = 0;
};

// Adds kRows rows of `group` from `first` on, and fetches the ones after them,
// which the processor cannot guess.
template <DataType kType, size_t kRows>
HWY_INLINE void AddRows(const Group& group, size_t first, size_t begin,
                        size_t end, float* output) {
  constexpr size_t kBytes = DataTypeBytes(kType);
  constexpr size_t kLineCols = kAlignmentBytes / kBytes;
  const D d;
  V scales[kRows];
  const uint8_t* rows[kRows];
  const uint8_t* next[kRows];
  for (size_t r = 0; r < kRows; ++r) {
    scales[r] = hn::Set(d, group.scales[first + r]);
    rows[r] = group.rows[first + r];
    next[r] = group.rows[std::min(first + r + kRows, group.count - 1)];
  }
  const size_t lanes = hn::Lanes(d);
  for (size_t line = begin; line < end; line += kLineCols) {
    for (size_t r = 0; r < kRows; ++r) {
      __builtin_prefetch(next[r] + line * kBytes, 0, kPrefetchToL2);
    }
    for (size_t c = line; c < line + kLineCols; c += lanes) {
      V sum = hn::Load(d, output + c);
      for (size_t r = 0; r < kRows; ++r) {
        sum = hn::MulAdd(scales[r],
                         element::LoadFloats<kType>(d, rows[r] + c * kBytes),
                         sum);
      }
      hn::Store(sum, d, output + c);
    }
  }
}

template <DataType kType>
void AddBlock(const DownTask& task, size_t block, size_t block_end,
              const float* gated, size_t begin, size_t end, float* output) {
  Group group;
  for (size_t i = block; i < block_end; ++i) {
    if (task.skip_zeros && gated[i] == 0) continue;
    group.rows[group.count] =
        task.weights.row(task.neurons == nullptr ? i : size_t{task.neurons[i]});
    group.scales[group.count++] = gated[i];
  }
  size_t i = 0;
  for (; i + kRowGroup <= group.count; i += kRowGroup) {
    AddRows<kType, kRowGroup>(group, i, begin, end, output);
  }
  for (; i < group.count; ++i) AddRows<kType, 1>(group, i, begin, end, output);
}

template <DataType kType>
void SumTile(const DownTask& task, size_t begin, size_t end) {
  const size_t stride = task.weights.padded_cols;
  for (size_t t = 0; t < task.tokens; ++t) {
    std::fill(task.output + t * stride + begin, task.output + t * stride + end,
              0.0F);
  }
  for (size_t block = 0; block < task.count; block += kRowBlock) {
    const size_t block_end = std::min(block + kRowBlock, task.count);
    for (size_t t = 0; t < task.tokens; ++t) {
      AddBlock<kType>(task, block, block_end,
                      task.gated + t * task.gated_stride, begin, end,
                      task.output + t * stride);
    }
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
