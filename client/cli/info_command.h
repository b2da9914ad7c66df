// sparse-ffn-client info: what a server holds.
#ifndef SPARSE_FFN_CLIENT_CLI_INFO_COMMAND_H_
#define SPARSE_FFN_CLIENT_CLI_INFO_COMMAND_H_

#include "absl/status/status.h"
#include "client/cli/target_options.h"

namespace sparse_ffn {

struct InfoOptions {
  TargetOptions target;
  bool json = false;
};

// Prints the model info to stdout.
absl::Status RunInfo(const InfoOptions& options);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_CLI_INFO_COMMAND_H_
