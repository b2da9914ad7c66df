// Command line of sparse-ffn-client.
#ifndef SPARSE_FFN_CLIENT_CLI_CLIENT_FLAGS_H_
#define SPARSE_FFN_CLIENT_CLI_CLIENT_FLAGS_H_

#include <optional>

#include "client/cli/check_command.h"
#include "client/cli/forward_command.h"
#include "client/cli/info_command.h"

namespace sparse_ffn {

enum class ClientCommand { kInfo, kForward, kCheck };

struct ClientFlags {
  ClientCommand command = ClientCommand::kInfo;
  // Those of `command` are set.
  InfoOptions info;
  ForwardCommandOptions forward;
  CheckCommandOptions check;
};

// Parses the command line. Otherwise prints what was asked for or what was
// wrong, and gives the code to exit with: 0 after --help, else not 0.
std::optional<int> ParseClientFlags(int argc, char** argv, ClientFlags* flags);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_CLI_CLIENT_FLAGS_H_
