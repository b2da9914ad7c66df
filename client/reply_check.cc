#include "client/reply_check.h"

#include <algorithm>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace sparse_ffn {
namespace {

absl::Status Wrong(absl::string_view field, const absl::AlphaNum& found,
                   const absl::AlphaNum& expected) {
  return absl::InternalError(absl::StrCat("in the reply ", field, " is ", found,
                                          ", expected ", expected));
}

std::string QuotedName(absl::string_view name) {
  return absl::StrCat("\"", absl::CEscape(name), "\"");
}

absl::Status CheckPath(const std::string& path, v1::Execution execution) {
  const bool dense = path == "dense";
  if (execution == v1::EXECUTION_DENSE && !dense) {
    return Wrong("path", QuotedName(path), "\"dense\", as asked for");
  }
  if (execution == v1::EXECUTION_SPARSE && dense) {
    return Wrong("path", QuotedName(path), "another: sparse was asked for");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckReply(const v1::ForwardRequest& request,
                        const v1::ForwardReply& reply) {
  if (reply.status_code() != 0) {
    return Wrong("status_code",
                 absl::StrCat(reply.status_code(), " (\"",
                              absl::CEscape(reply.status_message()), "\")"),
                 "0: the error of a unary call is the status of the call");
  }
  if (!reply.status_message().empty()) {
    return Wrong("status_message", QuotedName(reply.status_message()),
                 "none beside status_code 0");
  }
  if (reply.request_id() != request.request_id()) {
    return Wrong("request_id", reply.request_id(), request.request_id());
  }
  if (reply.tokens() != request.tokens()) {
    return Wrong("tokens", reply.tokens(), request.tokens());
  }
  if (reply.dtype() != request.dtype()) {
    return Wrong("dtype", static_cast<int>(reply.dtype()),
                 static_cast<int>(request.dtype()));
  }
  if (reply.hidden_states().size() != request.hidden_states().size()) {
    return Wrong("the size of hidden_states", reply.hidden_states().size(),
                 absl::StrCat(request.hidden_states().size(), " bytes"));
  }
  if (!reply.has_stats()) return Wrong("stats", "absent", "them on success");
  absl::Status status = CheckStats(reply.stats(), request.tokens());
  if (!status.ok()) return status;
  return CheckPath(reply.stats().path(), request.execution());
}

absl::Status CheckStats(const v1::ForwardStats& stats, uint32_t tokens) {
  const auto counts = static_cast<uint32_t>(stats.active_neurons_size());
  if (counts != tokens) {
    return Wrong("the number of active_neurons", counts,
                 absl::StrCat("one for each of ", tokens, " tokens"));
  }
  uint32_t most_active = 0;
  for (const uint32_t active : stats.active_neurons()) {
    most_active = std::max(most_active, active);
  }
  const uint32_t all = stats.union_active_neurons();
  if (all < most_active || all > stats.intermediate_size()) {
    return Wrong(
        "union_active_neurons", all,
        absl::StrCat("from ", most_active, ", the most that one token has, to ",
                     stats.intermediate_size(), " neurons"));
  }
  // Fewer than `tokens` where the server ran them in passes.
  if (stats.batch_tokens() == 0) {
    return Wrong("batch_tokens", stats.batch_tokens(), "1 or more");
  }
  const std::string& path = stats.path();
  if (path != "sparse" && path != "dense" && path != "fused") {
    return Wrong("path", QuotedName(path),
                 "\"sparse\", \"dense\" or \"fused\"");
  }
  return absl::OkStatus();
}

}  // namespace sparse_ffn
