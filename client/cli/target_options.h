// What every subcommand of sparse-ffn-client needs to reach its server.
#ifndef SPARSE_FFN_CLIENT_CLI_TARGET_OPTIONS_H_
#define SPARSE_FFN_CLIENT_CLI_TARGET_OPTIONS_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "client/ffn_client.h"

namespace sparse_ffn {

struct TargetOptions {
  std::string target = "localhost:50051";
  double connect_timeout_seconds = 5;
};

struct ConnectedServer {
  std::unique_ptr<FfnClient> client;
  v1::GetModelInfoReply info;
};

// Waits for the connection, and for the server to have its model loaded, each
// for at most the timeout.
absl::StatusOr<ConnectedServer> ConnectTo(const TargetOptions& options);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_CLI_TARGET_OPTIONS_H_
