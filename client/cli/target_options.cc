#include "client/cli/target_options.h"

#include <utility>

#include "absl/time/time.h"

namespace sparse_ffn {

absl::StatusOr<ConnectedServer> ConnectTo(const TargetOptions& options) {
  FfnClientOptions client_options;
  client_options.connect_timeout =
      absl::Seconds(options.connect_timeout_seconds);
  auto client = FfnClient::Connect(options.target, client_options);
  if (!client.ok()) return client.status();
  auto info = (*client)->WaitForModelInfo(client_options.connect_timeout);
  if (!info.ok()) return info.status();
  return ConnectedServer{*std::move(client), *std::move(info)};
}

}  // namespace sparse_ffn
