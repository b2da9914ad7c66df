#include "kernels/matrix.h"

#include <array>
#include <bit>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matrix.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/element-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sparse_ffn::HWY_NAMESPACE {

using D = hn::ScalableTag<float>;
constexpr size_t kLanes = hn::MaxLanes(D());

template <DataType kFrom, DataType kTo>
void ConvertElements(const uint8_t* from, uint8_t* to, size_t count) {
  constexpr size_t kFromBytes = DataTypeBytes(kFrom);
  constexpr size_t kToBytes = DataTypeBytes(kTo);
  const D d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    StoreFloats<kTo>(d, LoadFloats<kFrom>(d, from + i * kFromBytes),
                     to + i * kToBytes);
  }
  if (i == count) return;
  // The same instructions for the tail, so that every element rounds alike.
  std::array<uint8_t, kLanes* 4> in = {};
  std::array<uint8_t, kLanes * 4> out;
  std::memcpy(in.data(), from + i * kFromBytes, (count - i) * kFromBytes);
  StoreFloats<kTo>(d, LoadFloats<kFrom>(d, in.data()), out.data());
  std::memcpy(to + i * kToBytes, out.data(), (count - i) * kToBytes);
}

template <DataType kFrom>
void ConvertFrom(const uint8_t* from, DataType to_type, uint8_t* to,
                 size_t count) {
  switch (to_type) {
    case DataType::kFloat32:
      return ConvertElements<kFrom, DataType::kFloat32>(from, to, count);
    case DataType::kFloat16:
      return ConvertElements<kFrom, DataType::kFloat16>(from, to, count);
    case DataType::kBFloat16:
      return ConvertElements<kFrom, DataType::kBFloat16>(from, to, count);
  }
}

void ConvertAny(const uint8_t* from, DataType from_type, uint8_t* to,
                DataType to_type, size_t count) {
  switch (from_type) {
    case DataType::kFloat32:
      return ConvertFrom<DataType::kFloat32>(from, to_type, to, count);
    case DataType::kFloat16:
      return ConvertFrom<DataType::kFloat16>(from, to_type, to, count);
    case DataType::kBFloat16:
      return ConvertFrom<DataType::kBFloat16>(from, to_type, to, count);
  }
}

template <DataType kType>
int64_t FindAtLeast(const uint8_t* from, size_t count, int32_t limit_bits) {
  constexpr size_t kBytes = DataTypeBytes(kType);
  const D d;
  const hn::RebindToSigned<D> di;
  const size_t lanes = hn::Lanes(d);
  const auto magnitude_mask = hn::Set(di, 0x7fffffff);
  const auto below = hn::Set(di, limit_bits - 1);
  for (size_t i = 0; i < count; i += lanes) {
    std::array<uint8_t, kLanes * 4> tail;
    const uint8_t* at = from + i * kBytes;
    if (i + lanes > count) {
      tail.fill(0);
      std::memcpy(tail.data(), at, (count - i) * kBytes);
      at = tail.data();
    }
    const auto bits = hn::BitCast(di, LoadFloats<kType>(d, at));
    const intptr_t found =
        hn::FindFirstTrue(di, hn::Gt(hn::And(bits, magnitude_mask), below));
    if (found >= 0) return static_cast<int64_t>(i) + found;
  }
  return -1;
}

int64_t FindAtLeastAny(const uint8_t* from, DataType type, size_t count,
                       int32_t limit_bits) {
  switch (type) {
    case DataType::kFloat32:
      return FindAtLeast<DataType::kFloat32>(from, count, limit_bits);
    case DataType::kFloat16:
      return FindAtLeast<DataType::kFloat16>(from, count, limit_bits);
    case DataType::kBFloat16:
      break;
  }
  return FindAtLeast<DataType::kBFloat16>(from, count, limit_bits);
}

}  // namespace sparse_ffn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sparse_ffn {
namespace {

HWY_EXPORT(ConvertAny);
HWY_EXPORT(FindAtLeastAny);

// Half a unit in the last place above the largest finite value: ties go to
// even, which is the infinity.
constexpr int32_t LeastInfiniteBits(DataType type) {
  switch (type) {
    case DataType::kFloat32:
      return 0x7f800000;
    case DataType::kFloat16:
      return 0x477ff000;
    case DataType::kBFloat16:
      break;
  }
  return 0x7f7f8000;
}

}  // namespace

std::optional<DataType> ParseDataType(std::string_view name) {
  if (name == "float32" || name == "fp32") return DataType::kFloat32;
  if (name == "float16" || name == "fp16") return DataType::kFloat16;
  if (name == "bfloat16" || name == "bf16") return DataType::kBFloat16;
  return std::nullopt;
}

void Convert(ConstMatrix source, Matrix destination) {
  if (source.dtype == destination.dtype) {
    if (source.bytes() == 0) return;
    std::memmove(destination.data, source.data, source.bytes());
    return;
  }
  HWY_DYNAMIC_DISPATCH(ConvertAny)
  (static_cast<const uint8_t*>(source.data), source.dtype,
   static_cast<uint8_t*>(destination.data), destination.dtype,
   source.rows * source.cols);
}

float LeastInfinite(DataType as) {
  return std::bit_cast<float>(LeastInfiniteBits(as));
}

int64_t FindNonFinite(ConstMatrix matrix, DataType as) {
  return HWY_DYNAMIC_DISPATCH(FindAtLeastAny)(
      static_cast<const uint8_t*>(matrix.data), matrix.dtype,
      matrix.rows * matrix.cols, LeastInfiniteBits(as));
}

}  // namespace sparse_ffn
#endif  // HWY_ONCE
