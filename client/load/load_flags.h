// Command line of sparse-ffn-load.
#ifndef SPARSE_FFN_CLIENT_LOAD_LOAD_FLAGS_H_
#define SPARSE_FFN_CLIENT_LOAD_LOAD_FLAGS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "client/load/load_client.h"
#include "sparse_ffn/v1/ffn.pb.h"

namespace sparse_ffn {

struct LoadFlags {
  std::string target = "localhost:50051";
  size_t clients = 1;
  size_t in_flight = 0;  // 0: one, or 64 in an open loop.
  double rate = 0;       // Requests a second of all clients; 0: closed loop.
  bool decode = false;
  std::string mode = "unary";
  size_t tokens = 1;
  std::string layer = "all";  // "all", "random" or a number.
  std::string dtype;          // Empty: that of the server's weights.
  std::string execution = "auto";
  std::string inputs;           // Empty: random rows.
  double duration_seconds = 0;  // 0: until `requests`, or 10.
  uint64_t requests = 0;        // 0: until the time is over.
  double warmup_seconds = 1;
  double deadline_ms = 0;  // 0: none.
  double connect_timeout_seconds = 5;
  bool busy_poll = false;
  uint64_t seed = 1;
  std::string json;
};

// Parses the command line. Otherwise prints what was asked for or what was
// wrong, and gives the code to exit with: 0 after --help, else not 0.
std::optional<int> ParseLoadFlags(int argc, char** argv, LoadFlags* flags);

// The plan of each client, except for its times. INVALID_ARGUMENT where the
// flags do not fit each other or the model.
absl::StatusOr<LoadPlan> MakeLoadPlan(const LoadFlags& flags,
                                      const v1::GetModelInfoReply& model);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_LOAD_LOAD_FLAGS_H_
