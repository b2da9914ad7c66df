// sparse-ffn-client check: is what a server computes what its checkpoint says?
#ifndef SPARSE_FFN_CLIENT_CLI_CHECK_COMMAND_H_
#define SPARSE_FFN_CLIENT_CLI_CHECK_COMMAND_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "client/cli/target_options.h"

namespace sparse_ffn {

struct CheckCommandOptions {
  TargetOptions target;
  std::string model;
  std::string inputs;                 // Empty: random rows.
  size_t tokens = 0;                  // 0: a few counts.
  std::optional<std::string> layers;  // Default: all that the server holds.
  std::string dtype = "float32";      // On the wire.
  std::string execution = "auto";
  uint64_t seed = 1;
};

// Sends rows through every layer in requests of several sizes, recomputes them
// in double precision from the checkpoint, and prints for each layer and size
// the worst error beside its tolerance and the active neurons of both sides.
// Where all layers that the server holds are checked, compares the weights hash
// too: no answer shows the weights of neurons that were never active. A hash
// that differs says nothing where the checkpoint has another type than the
// server's weights, which may have been converted. True where every output is
// within its tolerance, every active count agrees and the hash does not differ.
// An error where that could not be found out.
absl::StatusOr<bool> RunCheck(const CheckCommandOptions& options);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_CLI_CHECK_COMMAND_H_
