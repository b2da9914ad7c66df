#include "server/logging.h"

#include <memory>

#include "absl/strings/str_format.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace sparse_ffn {
namespace {

// Never destroyed: threads may log until the process ends.
spdlog::logger& Logger() {
  static spdlog::logger* const logger = [] {
    auto* made = new spdlog::logger(
        "server", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_pattern("ts=%Y-%m-%dT%H:%M:%S.%eZ level=%l %v",
                      spdlog::pattern_time_type::utc);
    return made;
  }();
  return *logger;
}

bool Plain(char c) {
  return c > ' ' && c < 0x7f && c != '"' && c != '=' && c != '\\';
}

void AppendQuoted(absl::string_view value, std::string* out) {
  out->push_back('"');
  for (char c : value) {
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) {
      absl::StrAppendFormat(out, "\\x%02x", static_cast<unsigned char>(c));
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

void AppendField(absl::string_view key, absl::string_view value,
                 std::string* out) {
  if (!out->empty()) out->push_back(' ');
  absl::StrAppend(out, key, "=");
  bool plain = !value.empty();
  for (char c : value) plain = plain && Plain(c);
  if (plain) {
    absl::StrAppend(out, value);
  } else {
    AppendQuoted(value, out);
  }
}

void Log(spdlog::level::level_enum level, absl::string_view message,
         std::initializer_list<LogField> fields) {
  Logger().log(level, "{}", FormatLogRecord(message, fields));
}

}  // namespace

std::string FormatLogRecord(absl::string_view message,
                            std::initializer_list<LogField> fields) {
  std::string record;
  AppendField("msg", message, &record);
  for (const LogField& field : fields) {
    AppendField(field.key, field.value, &record);
  }
  return record;
}

void LogInfo(absl::string_view message,
             std::initializer_list<LogField> fields) {
  Log(spdlog::level::info, message, fields);
}

void LogWarning(absl::string_view message,
                std::initializer_list<LogField> fields) {
  Log(spdlog::level::warn, message, fields);
}

void LogError(absl::string_view message,
              std::initializer_list<LogField> fields) {
  Log(spdlog::level::err, message, fields);
}

}  // namespace sparse_ffn
