#include "server/checkpoint/json_reader.h"

#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/checkpoint/quoted.h"

namespace sparse_ffn {
namespace {

using nlohmann::json;

// Turns nlohmann's events into ours and keeps the first error.
class Adapter final : public nlohmann::json_sax<json> {
 public:
  explicit Adapter(JsonHandler& handler) : handler_(handler) {}

  const absl::Status& status() const { return status_; }

  bool null() override { return Scalar({}); }
  bool boolean(bool value) override {
    JsonScalar scalar;
    scalar.kind = JsonScalar::Kind::kBool;
    scalar.unsigned_value = value ? 1 : 0;
    return Scalar(scalar);
  }
  bool number_integer(number_integer_t value) override {
    JsonScalar scalar;
    scalar.kind = JsonScalar::Kind::kNumber;
    scalar.number = static_cast<double>(value);
    return Scalar(scalar);
  }
  bool number_unsigned(number_unsigned_t value) override {
    JsonScalar scalar;
    scalar.kind = JsonScalar::Kind::kUnsigned;
    scalar.unsigned_value = value;
    scalar.number = static_cast<double>(value);
    return Scalar(scalar);
  }
  bool number_float(number_float_t value, const string_t&) override {
    JsonScalar scalar;
    scalar.kind = JsonScalar::Kind::kNumber;
    scalar.number = value;
    return Scalar(scalar);
  }
  bool string(string_t& value) override {
    JsonScalar scalar;
    scalar.kind = JsonScalar::Kind::kString;
    scalar.text = absl::string_view(value.data(), value.size());
    return Scalar(scalar);
  }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return Keep(handler_.StartObject()); }
  bool end_object() override { return Keep(handler_.EndObject()); }
  bool start_array(size_t) override { return Keep(handler_.StartArray()); }
  bool end_array() override { return Keep(handler_.EndArray()); }
  bool key(string_t& value) override {
    return Keep(handler_.Key(absl::string_view(value.data(), value.size())));
  }
  bool parse_error(size_t position, const std::string& last_token,
                   const json::exception&) override {
    return Keep(absl::InvalidArgumentError(
        absl::StrCat("expected JSON, found something else at byte ", position,
                     ", after ", Quoted(last_token))));
  }

 private:
  bool Scalar(const JsonScalar& scalar) {
    return Keep(handler_.Scalar(scalar));
  }
  bool Keep(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
    return status_.ok();
  }

  JsonHandler& handler_;
  absl::Status status_;
};

}  // namespace

std::string JsonScalar::Describe() const {
  switch (kind) {
    case Kind::kNull:
      return "null";
    case Kind::kBool:
      return unsigned_value != 0 ? "true" : "false";
    case Kind::kUnsigned:
      return absl::StrCat(unsigned_value);
    case Kind::kNumber:
      return absl::StrCat(number);
    case Kind::kString:
      break;
  }
  return Quoted(text);
}

absl::Status JsonLimitCheck::Next(absl::string_view piece) {
  for (const char c : piece) {
    if (c == '\0') {
      return absl::InvalidArgumentError("expected JSON, found a zero byte");
    }
    if (++run_bytes_ > limits_.max_string_bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("expected strings, numbers and gaps of at most ",
                       limits_.max_string_bytes, " bytes, found a longer one"));
    }
    if (in_string_) {
      if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '"') {
        in_string_ = false;
        run_bytes_ = 0;
      }
    } else if (c == '"') {
      in_string_ = true;
      run_bytes_ = 0;
    } else if (c == '{' || c == '[') {
      run_bytes_ = 0;
      if (++depth_ > limits_.max_depth) {
        return absl::InvalidArgumentError(
            absl::StrCat("expected a nesting depth of at most ",
                         limits_.max_depth, ", found a deeper one"));
      }
    } else if (c == '}' || c == ']') {
      run_bytes_ = 0;
      if (depth_ > 0) --depth_;
    } else if (c == ',' || c == ':' || c == ' ' || c == '\n') {
      run_bytes_ = 0;
    }
  }
  return absl::OkStatus();
}

absl::Status ReadJson(absl::string_view text, const JsonLimits& limits,
                      JsonHandler& handler) {
  absl::Status status = JsonLimitCheck(limits).Next(text);
  if (!status.ok()) return status;
  Adapter adapter(handler);
  const bool complete =
      json::sax_parse(text.begin(), text.end(), &adapter,
                      json::input_format_t::json, /*strict=*/true);
  if (complete || !adapter.status().ok()) return adapter.status();
  return absl::InvalidArgumentError("expected JSON, found something else");
}

}  // namespace sparse_ffn
