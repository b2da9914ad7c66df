#include "client/cli/info_command.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "server/checkpoint/layer_ranges.h"

namespace sparse_ffn {
namespace {

void PrintText(const v1::GetModelInfoReply& info) {
  const std::vector<int> layers(info.layers().begin(), info.layers().end());
  const std::pair<const char*, std::string> lines[] = {
      {"model", info.model_name()},
      {"layers held",
       absl::StrCat(layers.size(), " (", FormatLayers(layers), ")")},
      {"hidden size", absl::StrCat(info.hidden_size())},
      {"intermediate size", absl::StrCat(info.intermediate_size())},
      {"weights", WireName(info.weights_dtype())},
      {"activation", info.activation()},
      {"threshold", absl::StrCat(info.threshold())},
      {"backend", info.backend()},
      {"device", info.device_name()},
      {"most tokens a request", absl::StrCat(info.max_batch_tokens())},
      {"weights hash", info.weights_hash()},
      {"server version", info.server_version()},
  };
  for (const auto& [name, value] : lines) {
    absl::PrintF("%-22s %s\n", name, value);
  }
}

void PrintJson(const v1::GetModelInfoReply& info) {
  const nlohmann::json json = {
      {"model_name", info.model_name()},
      {"layers",
       std::vector<uint32_t>(info.layers().begin(), info.layers().end())},
      {"hidden_size", info.hidden_size()},
      {"intermediate_size", info.intermediate_size()},
      {"weights_dtype", WireName(info.weights_dtype())},
      {"activation", info.activation()},
      {"threshold", info.threshold()},
      {"backend", info.backend()},
      {"device_name", info.device_name()},
      {"max_batch_tokens", info.max_batch_tokens()},
      {"weights_hash", info.weights_hash()},
      {"server_version", info.server_version()}};
  absl::PrintF("%s\n", json.dump(2));
}

}  // namespace

absl::Status RunInfo(const InfoOptions& options) {
  const absl::StatusOr<ConnectedServer> server = ConnectTo(options.target);
  if (!server.ok()) return server.status();
  if (options.json) {
    PrintJson(server->info);
  } else {
    PrintText(server->info);
  }
  return absl::OkStatus();
}

}  // namespace sparse_ffn
