// sparse-ffn-client: asks, uses and checks a sparse-ffn-server.
#include <cstdio>
#include <exception>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "client/cli/client_flags.h"

namespace sparse_ffn {
namespace {

// A check that found what must not be; see the footer of --help.
constexpr int kExitCheckFailed = 2;

// 0 where it went well, 1 where it did not.
int ExitCode(const absl::Status& status) {
  if (status.ok()) return 0;
  absl::FPrintF(stderr, "sparse-ffn-client: %s\n", status.message());
  return 1;
}

int Main(int argc, char** argv) {
  ClientFlags flags;
  const std::optional<int> exit_code = ParseClientFlags(argc, argv, &flags);
  if (exit_code.has_value()) return *exit_code;
  switch (flags.command) {
    case ClientCommand::kInfo:
      return ExitCode(RunInfo(flags.info));
    case ClientCommand::kForward:
      return ExitCode(RunForward(flags.forward));
    case ClientCommand::kCheck:
      break;
  }
  const absl::StatusOr<bool> passed = RunCheck(flags.check);
  if (!passed.ok()) return ExitCode(passed.status());
  return *passed ? 0 : kExitCheckFailed;
}

}  // namespace
}  // namespace sparse_ffn

int main(int argc, char** argv) {
  try {
    return sparse_ffn::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "sparse-ffn-client: %s\n", error.what());
    return 1;
  }
}
