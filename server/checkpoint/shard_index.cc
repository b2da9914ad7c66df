#include "server/checkpoint/shard_index.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/checkpoint/json_reader.h"
#include "server/checkpoint/new_file.h"
#include "server/checkpoint/quoted.h"
#include "server/checkpoint/regular_file.h"
#include "server/checkpoint/tensor_names.h"

namespace sparse_ffn {
namespace {

constexpr size_t kMaxFileBytes = 64 << 20;
constexpr size_t kMaxNameBytes = 255;  // Of a file, on any usual file system.
constexpr size_t kMaxFfnTensors = 1 << 16;
constexpr JsonLimits kLimits = {32, 64 << 10};

bool IsPlainFileName(absl::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes && name != "." &&
         name != ".." && !absl::StrContains(name, '/') &&
         !absl::StrContains(name, '\\') && !absl::StrContains(name, '\0');
}

class IndexHandler final : public JsonHandler {
 public:
  absl::Status StartObject() override {
    ++depth_;
    return depth_ == 3 && in_map_ ? NotAName("an object") : absl::OkStatus();
  }
  absl::Status EndObject() override {
    --depth_;
    if (depth_ == 1) in_map_ = false;
    return absl::OkStatus();
  }
  absl::Status StartArray() override {
    ++depth_;
    if (depth_ == 1) {
      return absl::InvalidArgumentError("expected an object, found an array");
    }
    if (in_map_ && depth_ == 2) return NoMap("an array");
    return depth_ == 3 && in_map_ ? NotAName("an array") : absl::OkStatus();
  }
  absl::Status EndArray() override {
    --depth_;
    return absl::OkStatus();
  }

  absl::Status Key(absl::string_view key) override {
    if (depth_ == 1) {
      in_map_ = key == "weight_map";
      if (in_map_ && std::exchange(seen_map_, true)) {
        return absl::InvalidArgumentError("expected one weight_map, found two");
      }
    } else if (depth_ == 2 && in_map_) {
      tensor_.assign(key.data(), key.size());
    }
    return absl::OkStatus();
  }

  absl::Status Scalar(const JsonScalar& value) override {
    if (depth_ == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("expected an object, found ", value.Describe()));
    }
    if (!in_map_) return absl::OkStatus();
    if (depth_ == 1) return NoMap(value.Describe());
    if (value.kind != JsonScalar::Kind::kString ||
        !IsPlainFileName(value.text)) {
      return NotAName(value.Describe());
    }
    if (!ParseFfnTensorName(tensor_)) return absl::OkStatus();
    if (index_.size() == kMaxFfnTensors) {
      return absl::InvalidArgumentError(absl::StrCat(
          "expected at most ", kMaxFfnTensors, " FFN tensors, found more"));
    }
    if (!index_.emplace(tensor_, value.text).second) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor ", Quoted(tensor_), ": expected it once, found it twice"));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<ShardIndex> Finish() {
    if (seen_map_) return std::move(index_);
    return absl::InvalidArgumentError("expected a weight_map, found none");
  }

 private:
  absl::Status NotAName(const std::string& found) const {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor ", Quoted(tensor_),
        ": expected a file name inside the folder, found ", found));
  }
  static absl::Status NoMap(const std::string& found) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected an object as weight_map, found ", found));
  }

  ShardIndex index_;
  size_t depth_ = 0;
  bool in_map_ = false;
  bool seen_map_ = false;
  std::string tensor_;
};

}  // namespace

absl::StatusOr<ShardIndex> ReadShardIndex(const std::string& path) {
  absl::StatusOr<std::string> text = ReadSmallFile(path, kMaxFileBytes);
  if (!text.ok()) return text.status();
  IndexHandler handler;
  const absl::Status status = ReadJson(*text, kLimits, handler);
  absl::StatusOr<ShardIndex> index =
      status.ok() ? handler.Finish() : absl::StatusOr<ShardIndex>(status);
  if (index.ok()) return index;
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": ", std::string(index.status().message())));
}

absl::Status WriteShardIndex(const ShardIndex& index, uint64_t total_bytes,
                             const std::string& path) {
  const nlohmann::ordered_json json = {
      {"metadata", {{"total_size", total_bytes}}}, {"weight_map", index}};
  const std::string text = json.dump(
      2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  return WriteFile(path, text + "\n");
}

}  // namespace sparse_ffn
