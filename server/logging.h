// One-line records on standard error, key=value:
//   ts=2026-01-31T12:00:00.123Z level=info msg="model loaded" layers=32
#ifndef SPARSE_FFN_SERVER_LOGGING_H_
#define SPARSE_FFN_SERVER_LOGGING_H_

#include <initializer_list>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace sparse_ffn {

// Converts numbers and strings: {"layers", 32}. `key` is a literal.
struct LogField {
  LogField(const char* field_key, const absl::AlphaNum& field_value)
      : key(field_key),
        value(field_value.Piece().data(), field_value.Piece().size()) {}

  const char* key;
  std::string value;
};

// Any thread may log; a record is written whole. For events of the process, not
// of single requests.
void LogInfo(absl::string_view message,
             std::initializer_list<LogField> fields = {});
void LogWarning(absl::string_view message,
                std::initializer_list<LogField> fields = {});
void LogError(absl::string_view message,
              std::initializer_list<LogField> fields = {});

// msg and fields of a record. Values with other than plain characters are
// quoted; quotes, backslashes and control characters in them are escaped.
std::string FormatLogRecord(absl::string_view message,
                            std::initializer_list<LogField> fields);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_LOGGING_H_
