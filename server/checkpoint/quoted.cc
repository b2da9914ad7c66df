#include "server/checkpoint/quoted.h"

#include <cstddef>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace sparse_ffn {
namespace {

constexpr size_t kMaxQuotedBytes = 96;

}  // namespace

std::string Quoted(absl::string_view text) {
  const bool shorten = text.size() > kMaxQuotedBytes;
  // Between double quotes, single ones stand for themselves.
  const std::string escaped = absl::StrReplaceAll(
      absl::CHexEscape(text.substr(0, kMaxQuotedBytes)), {{"\\'", "'"}});
  return absl::StrCat("\"", escaped, shorten ? "...\"" : "\"");
}

}  // namespace sparse_ffn
