#include "server/checkpoint/quoted.h"

#include <cstddef>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace sparse_ffn {
namespace {

constexpr size_t kMaxQuotedBytes = 96;

}  // namespace

std::string Quoted(absl::string_view text) {
  const bool shorten = text.size() > kMaxQuotedBytes;
  return absl::StrCat("\"", absl::CHexEscape(text.substr(0, kMaxQuotedBytes)),
                      shorten ? "...\"" : "\"");
}

}  // namespace sparse_ffn
