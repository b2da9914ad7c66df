#include "client/cli/client_flags.h"

#include <limits>
#include <string>

#include "CLI/CLI.hpp"
#include "client/command_line.h"
#include "client/number_option.h"

namespace sparse_ffn {
namespace {

void AddTargetOptions(CLI::App* command, TargetOptions* options) {
  command
      ->add_option("--target", options->target,
                   "Server, as host:port or unix:path")
      ->capture_default_str();
  command
      ->add_option("--connect-timeout", options->connect_timeout_seconds,
                   "Seconds to wait for a connection, and as long again for "
                   "the server to load its model")
      ->check(NumberFrom(kLeastPositive, kMostSeconds))
      ->capture_default_str();
}

CLI::App* AddInfoCommand(CLI::App* app, InfoOptions* options) {
  CLI::App* command = app->add_subcommand("info", "Say what a server holds");
  AddTargetOptions(command, &options->target);
  command->add_flag("--json", options->json, "Print JSON");
  return command;
}

CLI::App* AddForwardCommand(CLI::App* app, ForwardCommandOptions* options) {
  CLI::App* command = app->add_subcommand(
      "forward", "Send the rows of a .npy file through one layer");
  AddTargetOptions(command, &options->target);
  command->add_option("--layer", options->layer, "Layer")
      ->check(IntegerFrom(0, std::numeric_limits<int>::max()))
      ->required();
  command
      ->add_option("--inputs", options->inputs,
                   "Hidden states, .npy [tokens, hidden_size]")
      ->required();
  command
      ->add_option("--outputs", options->outputs,
                   "Where to write the output, .npy [tokens, hidden_size]")
      ->required();
  command->add_option("--dtype", options->dtype,
                      "Type on the wire: float32, float16 or bfloat16 "
                      "(default: that of the input)");
  command
      ->add_option("--execution", options->execution,
                   "Kernels: auto, sparse or dense")
      ->capture_default_str();
  command
      ->add_option("--deadline-ms", options->deadline_ms,
                   "Deadline of each request, milliseconds")
      ->check(NumberFrom(kLeastPositive, 1e3 * kMostSeconds));
  return command;
}

CLI::App* AddCheckCommand(CLI::App* app, CheckCommandOptions* options) {
  CLI::App* command = app->add_subcommand(
      "check",
      "Compare a server's answers with its checkpoint; without --layers also "
      "the hash of all weights, active or not");
  AddTargetOptions(command, &options->target);
  command
      ->add_option("--model", options->model,
                   "Folder of the checkpoint that the server holds")
      ->required();
  command->add_option("--inputs", options->inputs,
                      "Hidden states, .npy [rows, hidden_size]; the first 64 "
                      "rows, or as many as --tokens, are used (default: "
                      "random)");
  command
      ->add_option("--tokens", options->tokens,
                   "Send requests of 1, 2, ... up to this many tokens "
                   "(default: a few sizes up to 64)")
      ->check(IntegerFrom(1, kMostTokens));
  command->add_option_function<std::string>(
      "--layers",
      [options](const std::string& text) { options->layers = text; },
      "Layers, such as 0-3,7 (default: all that the server holds)");
  command
      ->add_option("--dtype", options->dtype,
                   "Type on the wire: float32, float16 or bfloat16")
      ->capture_default_str();
  command
      ->add_option("--execution", options->execution,
                   "Kernels: auto, sparse or dense")
      ->capture_default_str();
  command->add_option("--seed", options->seed, "Seed of the random rows")
      ->check(AnySeed())
      ->capture_default_str();
  return command;
}

}  // namespace

std::optional<int> ParseClientFlags(int argc, char** argv, ClientFlags* flags) {
  CLI::App app("Asks, uses and checks a sparse-ffn-server.",
               "sparse-ffn-client");
  app.require_subcommand(1);
  app.footer(
      "Ends with 0 where all went well, 2 where check found answers or weights "
      "that are wrong, 1 where it could not be done.");
  const CLI::App* info = AddInfoCommand(&app, &flags->info);
  const CLI::App* forward = AddForwardCommand(&app, &flags->forward);
  const CLI::App* check = AddCheckCommand(&app, &flags->check);
  const std::string first = argc > 1 ? argv[1] : "";
  const bool is_command = first == info->get_name() ||
                          first == forward->get_name() ||
                          first == check->get_name();
  const bool asks = first == "-h" || first == "--help" || first == "--version";
  if (!is_command && !asks) {
    const std::string what =
        "expected info, forward or check, found '" + first + "'";
    return RejectCommandLine(app, what.c_str());
  }
  const std::optional<int> exit_code = ParseCommandLine(&app, argc, argv);
  if (exit_code.has_value()) return exit_code;
  flags->command = info->parsed()      ? ClientCommand::kInfo
                   : forward->parsed() ? ClientCommand::kForward
                                       : ClientCommand::kCheck;
  return std::nullopt;
}

}  // namespace sparse_ffn
