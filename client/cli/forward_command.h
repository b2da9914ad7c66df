// sparse-ffn-client forward: the rows of a .npy file through one layer.
#ifndef SPARSE_FFN_CLIENT_CLI_FORWARD_COMMAND_H_
#define SPARSE_FFN_CLIENT_CLI_FORWARD_COMMAND_H_

#include <string>

#include "absl/status/status.h"
#include "client/cli/target_options.h"

namespace sparse_ffn {

struct ForwardCommandOptions {
  TargetOptions target;
  int layer = 0;
  std::string inputs;
  std::string outputs;
  std::string dtype;  // On the wire; empty: that of the input file.
  std::string execution = "auto";
  double deadline_ms = 0;  // Of each request; 0: none.
};

// Sends the rows in requests of as many tokens as the server takes, prints the
// stats of each, and writes the output: as float16 where that is the type on
// the wire, as float32 otherwise. Writes nothing where a request fails.
absl::Status RunForward(const ForwardCommandOptions& options);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_CLI_FORWARD_COMMAND_H_
