// The command lines of the clients.
#ifndef SPARSE_FFN_CLIENT_COMMAND_LINE_H_
#define SPARSE_FFN_CLIENT_COMMAND_LINE_H_

#include <optional>

#include "CLI/CLI.hpp"

namespace sparse_ffn {

// What a program ends with whose command line is wrong.
constexpr int kExitWrongCommandLine = 1;

// Parses argv into the variables that the options of `app` name, whose name is
// that of the program. nullopt: the program goes on. Otherwise the help or the
// version that was asked for, or what is wrong, has been printed, and this is
// the exit code.
std::optional<int> ParseCommandLine(CLI::App* app, int argc, char** argv);

// Says on stderr what is wrong with the command line; returns the exit code.
int RejectCommandLine(const CLI::App& app, const char* what);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_COMMAND_LINE_H_
