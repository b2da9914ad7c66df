// The command line of sparse-ffn-server.
#ifndef SPARSE_FFN_SERVER_CONFIG_H_
#define SPARSE_FFN_SERVER_CONFIG_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/ffn_backend.h"
#include "server/load_model.h"

namespace sparse_ffn {

enum class BackendChoice { kAuto, kCpu, kCuda };

struct ServerConfig {
  ModelOptions model;
  std::vector<std::string> listen;  // host:port and unix:path.
  std::string metrics;              // host:port, or empty for none.
  BackendChoice backend = BackendChoice::kAuto;
  int device = 0;
  int threads = 0;                  // 0: one for each processor.
  bool deterministic = false;       // As in FfnConfig.
  uint32_t launch_ahead_us = 1000;  // Likewise.
  size_t max_batch_tokens = 256;
  size_t max_queued_tokens = 4096;
  double drain_seconds = 30;
  std::string path_costs;      // A file, or empty for none.
  double measure_seconds = 2;  // 0: paths are not measured.
};

struct CommandLine {
  ServerConfig config;
  // Set by --help and --version: print this and exit with 0.
  std::optional<std::string> print;
};

// `args` without the program's name. INVALID_ARGUMENT, one sentence that names
// the flag, for anything that is not understood or out of range.
absl::StatusOr<CommandLine> ParseCommandLine(std::vector<std::string> args);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_CONFIG_H_
