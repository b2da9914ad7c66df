// sparse-ffn-client: asks, uses and checks a sparse-ffn-server.
#include <cstdio>
#include <exception>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "client/cli/check_command.h"
#include "client/cli/forward_command.h"
#include "client/cli/info_command.h"

namespace sparse_ffn {
namespace {

// 0 where it went well, 1 where it did not.
int ExitCode(const absl::Status& status) {
  if (status.ok()) return 0;
  absl::FPrintF(stderr, "sparse-ffn-client: %s\n", status.message());
  return 1;
}

int Main(int argc, char** argv) {
  CLI::App app("Asks, uses and checks a sparse-ffn-server.",
               "sparse-ffn-client");
  app.require_subcommand(1);
  InfoOptions info_options;
  ForwardCommandOptions forward_options;
  CheckCommandOptions check_options;
  const CLI::App* info = AddInfoCommand(&app, &info_options);
  const CLI::App* forward = AddForwardCommand(&app, &forward_options);
  AddCheckCommand(&app, &check_options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }
  if (info->parsed()) return ExitCode(RunInfo(info_options));
  if (forward->parsed()) return ExitCode(RunForward(forward_options));
  const absl::StatusOr<bool> passed = RunCheck(check_options);
  if (!passed.ok()) return ExitCode(passed.status());
  return *passed ? 0 : 2;
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
