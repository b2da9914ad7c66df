// JSON that nobody vouches for, as a sequence of events: no tree is built, and
// no part of the text can make the reader take much memory.
#ifndef SPARSE_FFN_SERVER_CHECKPOINT_JSON_READER_H_
#define SPARSE_FFN_SERVER_CHECKPOINT_JSON_READER_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace sparse_ffn {

struct JsonLimits {
  size_t max_depth = 32;
  size_t max_string_bytes = 1 << 20;  // As written, escapes included.
};

// A value that is neither object nor array. `text` is valid during the call.
struct JsonScalar {
  enum class Kind { kNull, kBool, kUnsigned, kNumber, kString };
  Kind kind = Kind::kNull;
  uint64_t unsigned_value = 0;  // kUnsigned: an integer without a minus sign.
  double number = 0;            // kUnsigned and kNumber; finite.
  absl::string_view text;       // kString.

  // For messages: the value, shortened and escaped.
  std::string Describe() const;
};

// Each function returns an error to stop the reader.
class JsonHandler {
 public:
  virtual ~JsonHandler() = default;
  virtual absl::Status StartObject() = 0;
  virtual absl::Status EndObject() = 0;
  virtual absl::Status StartArray() = 0;
  virtual absl::Status EndArray() = 0;
  virtual absl::Status Key(absl::string_view key) = 0;
  virtual absl::Status Scalar(const JsonScalar& value) = 0;
};

// Finds text that exceeds the limits, or holds a NUL, without parsing it. Takes
// the text in pieces, so that a reader can stop before it has it all.
class JsonLimitCheck {
 public:
  explicit JsonLimitCheck(const JsonLimits& limits) : limits_(limits) {}
  absl::Status Next(absl::string_view piece);

 private:
  JsonLimits limits_;
  size_t depth_ = 0;
  size_t run_bytes_ = 0;  // Of the current string, number or word.
  bool in_string_ = false;
  bool escaped_ = false;
};

// Parses all of `text` after checking the limits. INVALID_ARGUMENT for text
// that is no JSON, or the handler's error. Never throws.
absl::Status ReadJson(absl::string_view text, const JsonLimits& limits,
                      JsonHandler& handler);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_CHECKPOINT_JSON_READER_H_
