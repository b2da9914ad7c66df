#include "server/checkpoint/safetensors_header.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/checkpoint/quoted.h"

namespace sparse_ffn {
namespace {

constexpr size_t kMaxTensors = 1 << 20;
constexpr size_t kMaxDimensions = 8;

// What is remembered of every tensor, kept or not.
struct Range {
  uint64_t begin;
  uint64_t end;
  uint64_t name_hash;
};

class HeaderHandler final : public JsonHandler {
 public:
  HeaderHandler(uint64_t data_bytes, const TensorNameFilter& keep)
      : data_bytes_(data_bytes), keep_(keep) {}

  absl::Status StartObject() override {
    ++depth_;
    if (depth_ == 1) return absl::OkStatus();
    if (depth_ == 2) {
      seen_dtype_ = seen_shape_ = seen_offsets_ = false;
      return absl::OkStatus();
    }
    return Unexpected("an object");
  }

  absl::Status EndObject() override {
    --depth_;
    if (depth_ == 0 || in_metadata_) {
      in_metadata_ = false;
      return absl::OkStatus();
    }
    return FinishTensor();
  }

  absl::Status StartArray() override {
    if (depth_ != 2 || in_metadata_ || in_array_ ||
        (field_ != Field::kShape && field_ != Field::kOffsets)) {
      return Unexpected("an array");
    }
    in_array_ = true;
    count_ = 0;
    return absl::OkStatus();
  }

  absl::Status EndArray() override {
    in_array_ = false;
    if (field_ == Field::kShape) {
      tensor_.shape.assign(numbers_.begin(), numbers_.begin() + count_);
      return absl::OkStatus();
    }
    if (count_ != 2) return Wrong("2 data_offsets", absl::StrCat(count_));
    tensor_.begin = numbers_[0];
    tensor_.end = numbers_[1];
    return absl::OkStatus();
  }

  absl::Status Key(absl::string_view key) override {
    if (depth_ == 1) return StartTensor(key);
    if (in_metadata_) return absl::OkStatus();
    if (key == "dtype") return StartField(Field::kDtype, seen_dtype_, key);
    if (key == "shape") return StartField(Field::kShape, seen_shape_, key);
    if (key == "data_offsets") {
      return StartField(Field::kOffsets, seen_offsets_, key);
    }
    return Wrong("dtype, shape and data_offsets", Quoted(key));
  }

  absl::Status Scalar(const JsonScalar& value) override {
    if (in_array_) return ArrayElement(value);
    const bool is_string = value.kind == JsonScalar::Kind::kString;
    if (depth_ == 2 && is_string && in_metadata_) return absl::OkStatus();
    if (depth_ != 2 || !is_string || field_ != Field::kDtype) {
      return Unexpected(value.Describe());
    }
    tensor_.dtype.assign(value.text.data(),
                         std::min<size_t>(value.text.size(), 16));
    return absl::OkStatus();
  }

  // Every tensor is known: do they tile the data, each name once?
  absl::Status Finish() {
    std::sort(ranges_.begin(), ranges_.end(),
              [](const Range& a, const Range& b) {
                return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
              });
    uint64_t expected = 0;
    for (const Range& range : ranges_) {
      if (range.begin != expected) {
        return absl::InvalidArgumentError(absl::StrCat(
            "expected tensors without gap or overlap, one beginning at byte ",
            expected, " of the data, found the next at ", range.begin));
      }
      expected = range.end;
    }
    if (expected != data_bytes_) {
      return absl::InvalidArgumentError(
          absl::StrCat("expected tensors up to the end of the data at byte ",
                       data_bytes_, ", found the last ending at ", expected));
    }
    std::sort(ranges_.begin(), ranges_.end(),
              [](const Range& a, const Range& b) {
                return a.name_hash < b.name_hash;
              });
    const auto twice = std::adjacent_find(ranges_.begin(), ranges_.end(),
                                          [](const Range& a, const Range& b) {
                                            return a.name_hash == b.name_hash;
                                          });
    if (twice == ranges_.end()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("expected each tensor name once, found one twice, with "
                     "data at bytes ",
                     twice->begin, " and ", std::next(twice)->begin));
  }

  SafetensorsTensors TakeTensors() { return std::move(tensors_); }

 private:
  enum class Field { kNone, kDtype, kShape, kOffsets };

  absl::Status StartTensor(absl::string_view name) {
    name_.assign(name.data(), name.size());
    tensor_ = {};
    field_ = Field::kNone;
    in_metadata_ = name == "__metadata__";
    if (!in_metadata_ || !seen_metadata_) {
      seen_metadata_ |= in_metadata_;
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError("expected one __metadata__, found two");
  }

  absl::Status StartField(Field field, bool& seen, absl::string_view key) {
    if (seen) return Wrong(absl::StrCat(key, " once"), "it twice");
    seen = true;
    field_ = field;
    return absl::OkStatus();
  }

  absl::Status ArrayElement(const JsonScalar& value) {
    const size_t limit = field_ == Field::kShape ? kMaxDimensions : 2;
    if (value.kind != JsonScalar::Kind::kUnsigned) {
      return Wrong("unsigned 64-bit integers", value.Describe());
    }
    if (count_ == limit) {
      return Wrong(absl::StrCat("at most ", limit,
                                field_ == Field::kShape ? " dimensions"
                                                        : " data_offsets"),
                   "more");
    }
    numbers_[count_++] = value.unsigned_value;
    return absl::OkStatus();
  }

  absl::Status FinishTensor() {
    if (!seen_dtype_ || !seen_shape_ || !seen_offsets_) {
      return Wrong("dtype, shape and data_offsets", "not all of them");
    }
    if (tensor_.begin > tensor_.end || tensor_.end > data_bytes_) {
      return Wrong(
          absl::StrCat("begin <= end <= ", data_bytes_, " in data_offsets"),
          absl::StrCat("[", tensor_.begin, ", ", tensor_.end, "]"));
    }
    if (ranges_.size() == kMaxTensors) {
      return Wrong(absl::StrCat("at most ", kMaxTensors, " tensors"), "more");
    }
    ranges_.push_back(
        {tensor_.begin, tensor_.end, absl::Hash<absl::string_view>{}(name_)});
    if (!keep_(name_)) return absl::OkStatus();
    if (!tensors_.emplace(name_, std::move(tensor_)).second) {
      return Wrong("its name once", "it twice");
    }
    return absl::OkStatus();
  }

  absl::Status Unexpected(const std::string& found) const {
    if (depth_ == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("expected an object of tensors, found ", found));
    }
    if (in_metadata_) return Wrong("an object of strings", found);
    if (depth_ == 1) return Wrong("an object", found);
    const char* expected = field_ == Field::kDtype   ? "a string as dtype"
                           : field_ == Field::kShape ? "an array as shape"
                                                     : "[begin, end]";
    return Wrong(expected, found);
  }

  absl::Status Wrong(const std::string& expected,
                     const std::string& found) const {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor ", Quoted(name_), ": expected ", expected, ", found ", found));
  }

  const uint64_t data_bytes_;
  const TensorNameFilter& keep_;
  std::vector<Range> ranges_;
  SafetensorsTensors tensors_;

  // Where in the text we are.
  size_t depth_ = 0;
  bool in_metadata_ = false;
  bool seen_metadata_ = false;
  bool in_array_ = false;
  std::string name_;
  SafetensorsTensor tensor_;
  Field field_ = Field::kNone;
  bool seen_dtype_ = false;
  bool seen_shape_ = false;
  bool seen_offsets_ = false;
  std::array<uint64_t, kMaxDimensions> numbers_ = {};
  size_t count_ = 0;
};

}  // namespace

absl::StatusOr<SafetensorsTensors> ParseSafetensorsHeader(
    absl::string_view json, uint64_t data_bytes, const TensorNameFilter& keep) {
  HeaderHandler handler(data_bytes, keep);
  absl::Status status = ReadJson(json, kSafetensorsJsonLimits, handler);
  if (status.ok()) status = handler.Finish();
  if (!status.ok()) return status;
  return handler.TakeTensors();
}

}  // namespace sparse_ffn
