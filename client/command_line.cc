#include "client/command_line.h"

#include <cstdio>

namespace sparse_ffn {

std::optional<int> ParseCommandLine(CLI::App* app, int argc, char** argv) {
  app->set_version_flag("--version", app->get_name() + " " SPARSE_FFN_VERSION);
  try {
    app->parse(argc, argv);
  } catch (const CLI::Success& what) {
    return app->exit(what);
  } catch (const CLI::ParseError& error) {
    return RejectCommandLine(*app, error.what());
  }
  return std::nullopt;
}

int RejectCommandLine(const CLI::App& app, const char* what) {
  std::fprintf(stderr, "%s: %s\nRun with --help for more information.\n",
               app.get_name().c_str(), what);
  return kExitWrongCommandLine;
}

}  // namespace sparse_ffn
