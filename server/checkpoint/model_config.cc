#include "server/checkpoint/model_config.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "server/checkpoint/json_reader.h"
#include "server/checkpoint/new_file.h"
#include "server/checkpoint/regular_file.h"

namespace sparse_ffn {
namespace {

constexpr size_t kMaxFileBytes = 4 << 20;
constexpr JsonLimits kLimits = {32, 64 << 10};

// Takes the entries of the outermost object; skips what is nested.
class ConfigHandler final : public JsonHandler {
 public:
  absl::Status StartObject() override {
    ++depth_;
    return depth_ == 2 ? Nested("an object") : absl::OkStatus();
  }
  absl::Status EndObject() override {
    --depth_;
    return absl::OkStatus();
  }
  absl::Status StartArray() override {
    ++depth_;
    if (depth_ == 1) {
      return absl::InvalidArgumentError("expected an object, found an array");
    }
    return depth_ == 2 ? Nested("an array") : absl::OkStatus();
  }
  absl::Status EndArray() override {
    --depth_;
    return absl::OkStatus();
  }

  absl::Status Key(absl::string_view key) override {
    if (depth_ != 1) return absl::OkStatus();
    key_.assign(key.data(), key.size());
    if (IsOurs() && !seen_.insert(key_).second) {
      return Wrong("one such entry", "two");
    }
    return absl::OkStatus();
  }

  absl::Status Scalar(const JsonScalar& value) override {
    if (depth_ == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("expected an object, found ", value.Describe()));
    }
    if (depth_ != 1) return absl::OkStatus();
    if (key_ == "hidden_size") {
      return Size(value, kMaxWidth, config_.hidden_size);
    }
    if (key_ == "intermediate_size") {
      return Size(value, kMaxWidth, config_.intermediate_size);
    }
    if (key_ == "num_hidden_layers") {
      return Size(value, kMaxLayers, config_.num_hidden_layers);
    }
    if (key_ == "hidden_act") return Name(value, config_.hidden_act);
    if (key_ == "hidden_activation") return Name(value, other_act_);
    if (key_ == "hidden_act_param") return Param(value);
    return absl::OkStatus();
  }

  absl::StatusOr<ModelConfig> Finish() {
    for (const char* key :
         {"hidden_size", "intermediate_size", "num_hidden_layers"}) {
      if (seen_.count(key) == 0) {
        key_ = key;
        return Wrong("an integer", "no such entry");
      }
    }
    if (config_.hidden_act.empty()) config_.hidden_act = other_act_;
    return config_;
  }

 private:
  bool IsOurs() const {
    return key_ == "hidden_size" || key_ == "intermediate_size" ||
           key_ == "num_hidden_layers" || key_ == "hidden_act" ||
           key_ == "hidden_activation" || key_ == "hidden_act_param";
  }

  absl::Status Wrong(const std::string& expected,
                     const std::string& found) const {
    return absl::InvalidArgumentError(
        absl::StrCat(key_, ": expected ", expected, ", found ", found));
  }

  absl::Status Nested(const std::string& found) const {
    return IsOurs() ? Wrong("a plain value", found) : absl::OkStatus();
  }

  absl::Status Size(const JsonScalar& value, size_t limit, size_t& size) {
    if (value.kind != JsonScalar::Kind::kUnsigned ||
        value.unsigned_value == 0 || value.unsigned_value > limit) {
      return Wrong(absl::StrCat("an integer from 1 to ", limit),
                   value.Describe());
    }
    size = value.unsigned_value;
    return absl::OkStatus();
  }

  absl::Status Name(const JsonScalar& value, std::string& name) {
    if (value.kind == JsonScalar::Kind::kNull) return absl::OkStatus();
    if (value.kind != JsonScalar::Kind::kString) {
      return Wrong("a string", value.Describe());
    }
    name.assign(value.text.data(), value.text.size());
    return absl::OkStatus();
  }

  absl::Status Param(const JsonScalar& value) {
    if (value.kind == JsonScalar::Kind::kNull) return absl::OkStatus();
    if ((value.kind != JsonScalar::Kind::kUnsigned &&
         value.kind != JsonScalar::Kind::kNumber) ||
        !std::isfinite(value.number) || value.number < 0) {
      return Wrong("a finite number >= 0", value.Describe());
    }
    config_.hidden_act_param = value.number;
    return absl::OkStatus();
  }

  ModelConfig config_;
  std::string other_act_;
  std::set<std::string> seen_;
  size_t depth_ = 0;
  std::string key_;
};

}  // namespace

absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& path) {
  absl::StatusOr<std::string> text = ReadSmallFile(path, kMaxFileBytes);
  if (!text.ok()) return text.status();
  ConfigHandler handler;
  const absl::Status status = ReadJson(*text, kLimits, handler);
  absl::StatusOr<ModelConfig> config =
      status.ok() ? handler.Finish() : absl::StatusOr<ModelConfig>(status);
  if (config.ok()) return config;
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": ", std::string(config.status().message())));
}

absl::Status WriteModelConfig(const ModelConfig& config,
                              const std::string& torch_dtype,
                              const std::string& path) {
  nlohmann::ordered_json json = {
      {"architectures", {"LlamaForCausalLM"}},
      {"model_type", "llama"},
      {"hidden_size", config.hidden_size},
      {"intermediate_size", config.intermediate_size},
      {"num_hidden_layers", config.num_hidden_layers},
      {"hidden_act", config.hidden_act},
  };
  if (config.hidden_act_param) {
    json["hidden_act_param"] = *config.hidden_act_param;
  }
  json["torch_dtype"] = torch_dtype;
  const std::string text = json.dump(
      2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  return WriteFile(path, text + "\n");
}

}  // namespace sparse_ffn
