#include "server/path_costs_file.h"

#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/checkpoint/json_reader.h"
#include "server/checkpoint/new_file.h"
#include "server/checkpoint/quoted.h"
#include "server/checkpoint/regular_file.h"

namespace sparse_ffn {
namespace {

using nlohmann::ordered_json;

constexpr uint64_t kFormat = 7;
constexpr size_t kMaxFileBytes = 1 << 20;
constexpr JsonLimits kLimits = {4, 1 << 10};
constexpr size_t kMaxCosts = 1000;
constexpr const char* kCostKeys[] = {"path", "tokens", "union_density",
                                     "microseconds"};

// Everything but the costs.
ordered_json Header(const FfnConfig& ffn, const std::string& device_name) {
  return {{"format", kFormat},
          {"server_version", SPARSE_FFN_VERSION},
          {"device_name", device_name},
          {"hidden_size", ffn.hidden_size},
          {"intermediate_size", ffn.intermediate_size},
          {"weights_dtype", DataTypeName(ffn.weights_dtype)},
          {"activation", ActivationName(ffn.activation)},
          {"max_batch_tokens", ffn.max_batch_tokens}};
}

std::string Text(const ordered_json& json, int indent = -1) {
  return json.dump(indent, ' ', false, ordered_json::error_handler_t::replace);
}

bool Same(const ordered_json& expected, const JsonScalar& found) {
  if (expected.is_string()) {
    return found.kind == JsonScalar::Kind::kString &&
           found.text == expected.get_ref<const std::string&>();
  }
  return found.kind == JsonScalar::Kind::kUnsigned &&
         found.unsigned_value == expected.get<uint64_t>();
}

// An object of the header's entries and "costs", an array of flat objects.
class CostsHandler final : public JsonHandler {
 public:
  explicit CostsHandler(ordered_json header) : header_(std::move(header)) {}

  absl::Status StartObject() override {
    if (depth_ != 0 && depth_ != 2) return Unexpected("an object");
    if (++depth_ == 1) return absl::OkStatus();
    if (costs_.size() == kMaxCosts) {
      return absl::InvalidArgumentError(absl::StrCat(
          "\"costs\": expected at most ", kMaxCosts, ", found more"));
    }
    costs_.emplace_back();
    cost_keys_.clear();
    return absl::OkStatus();
  }
  absl::Status EndObject() override {
    if (depth_-- == 1) return absl::OkStatus();
    for (const char* key : kCostKeys) {
      key_ = key;
      if (!cost_keys_.contains(key)) return Wrong("a value", "no such entry");
    }
    return absl::OkStatus();
  }
  absl::Status StartArray() override {
    if (depth_ != 1 || key_ != "costs") return Unexpected("an array");
    ++depth_;
    return absl::OkStatus();
  }
  absl::Status EndArray() override {
    --depth_;
    return absl::OkStatus();
  }

  absl::Status Key(absl::string_view key) override {
    key_.assign(key.data(), key.size());
    std::set<std::string>& seen = depth_ == 1 ? keys_ : cost_keys_;
    if (!seen.insert(key_).second) return Wrong("one such entry", "two");
    return absl::OkStatus();
  }

  absl::Status Scalar(const JsonScalar& value) override {
    if (depth_ == 3) return Cost(value, &costs_.back());
    const auto expected = header_.find(key_);
    if (depth_ != 1 || expected == header_.end()) {
      return Unexpected(value.Describe());
    }
    if (Same(*expected, value)) return absl::OkStatus();
    return Wrong(Text(*expected),
                 absl::StrCat(value.Describe(),
                              "; remove the file to have it measured again"));
  }

  absl::StatusOr<std::vector<PathCost>> Finish() {
    for (const auto& [key, value] : header_.items()) {
      key_ = key;
      if (!keys_.contains(key)) return Wrong(Text(value), "no such entry");
    }
    key_ = "costs";
    if (!keys_.contains(key_)) return Wrong("an array", "no such entry");
    if (costs_.empty()) {
      return Wrong("at least one cost",
                   "none; remove the file to have them measured");
    }
    return std::move(costs_);
  }

 private:
  absl::Status Wrong(const std::string& expected,
                     const std::string& found) const {
    const std::string cost =
        depth_ < 2 ? "" : absl::StrCat("cost ", costs_.size() - 1, ": ");
    return absl::InvalidArgumentError(absl::StrCat(
        cost, Quoted(key_), ": expected ", expected, ", found ", found));
  }

  // A value where another kind, or none, should be.
  absl::Status Unexpected(const std::string& found) const {
    if (depth_ == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("expected an object, found ", found));
    }
    if (depth_ == 2) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"costs\": expected objects, found ", found));
    }
    if (depth_ == 3) return Wrong("a plain value", found);
    if (key_ == "costs") return Wrong("an array", found);
    return Wrong(header_.contains(key_) ? "a plain value" : "no such entry",
                 found);
  }

  absl::Status Cost(const JsonScalar& value, PathCost* cost) const {
    const bool number = value.kind == JsonScalar::Kind::kUnsigned ||
                        value.kind == JsonScalar::Kind::kNumber;
    if (key_ == "path") return Path(value, &cost->path);
    if (key_ == "tokens") {
      if (value.kind != JsonScalar::Kind::kUnsigned) {
        return Wrong("an integer", value.Describe());
      }
      cost->tokens = value.unsigned_value;
      return absl::OkStatus();
    }
    if (key_ == "union_density" || key_ == "microseconds") {
      if (!number) return Wrong("a number", value.Describe());
      (key_ == "microseconds" ? cost->microseconds : cost->union_density) =
          value.number;
      return absl::OkStatus();
    }
    return Wrong("no such entry", value.Describe());
  }

  absl::Status Path(const JsonScalar& value, FfnPath* path) const {
    for (size_t i = 0; i < kFfnPaths; ++i) {
      *path = static_cast<FfnPath>(i);
      if (value.kind == JsonScalar::Kind::kString &&
          value.text == FfnPathName(*path)) {
        return absl::OkStatus();
      }
    }
    return Wrong("sparse, dense or fused", value.Describe());
  }

  ordered_json header_;
  std::vector<PathCost> costs_;
  size_t depth_ = 0;
  std::string key_;
  std::set<std::string> keys_;
  std::set<std::string> cost_keys_;
};

}  // namespace

absl::StatusOr<std::vector<PathCost>> ReadPathCosts(
    const std::string& path, const FfnConfig& ffn,
    const std::string& device_name) {
  absl::StatusOr<std::string> text = ReadSmallFile(path, kMaxFileBytes);
  if (!text.ok()) return text.status();
  CostsHandler handler(Header(ffn, device_name));
  const absl::Status status = ReadJson(*text, kLimits, handler);
  absl::StatusOr<std::vector<PathCost>> costs =
      status.ok() ? handler.Finish()
                  : absl::StatusOr<std::vector<PathCost>>(status);
  if (costs.ok()) return costs;
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": ", costs.status().message()));
}

absl::Status WritePathCosts(const std::string& path, const FfnConfig& ffn,
                            const std::string& device_name,
                            absl::Span<const PathCost> costs) {
  ordered_json json = Header(ffn, device_name);
  json["costs"] = ordered_json::array();
  for (const PathCost& cost : costs) {
    json["costs"].push_back({{"path", FfnPathName(cost.path)},
                             {"tokens", cost.tokens},
                             {"union_density", cost.union_density},
                             {"microseconds", cost.microseconds}});
  }
  return WriteFile(path, Text(json, 2) + "\n");
}

}  // namespace sparse_ffn
