// What one client of a load, or all of them together, has seen.
#ifndef SPARSE_FFN_CLIENT_LOAD_LOAD_RESULT_H_
#define SPARSE_FFN_CLIENT_LOAD_LOAD_RESULT_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "client/load/latency_histogram.h"
#include "sparse_ffn/v1/ffn.pb.h"

namespace sparse_ffn {

// Sums over replies of what the server said it took.
struct ServerTotals {
  uint64_t replies = 0;
  uint64_t tokens = 0;
  uint64_t batch_tokens = 0;
  uint64_t queue_ns = 0;
  // A server may time the steps of some batches only.
  uint64_t timed_replies = 0;
  uint64_t gate_ns = 0;
  uint64_t up_ns = 0;
  uint64_t down_ns = 0;
  uint64_t compute_ns = 0;
  uint64_t active_neurons = 0;
  uint64_t evaluated_neurons = 0;  // Tokens times intermediate_size.
  uint64_t union_active_neurons = 0;
  uint64_t union_evaluated_neurons = 0;  // Replies times intermediate_size.
  std::map<std::string, uint64_t> paths;

  void Add(const v1::ForwardStats& stats);
  void Merge(const ServerTotals& other);
};

struct ErrorCount {
  uint64_t count = 0;
  std::string first_message;
};

// Of the measured time: requests whose intended start lies in it, after the
// warm-up.
struct LoadResult {
  LatencyHistogram latency;        // Of successful requests.
  LatencyHistogram token_latency;  // Of tokens through all layers, decoding.
  uint64_t arrivals = 0;           // Requests that were meant to start.
  uint64_t unsent = 0;             // Of these, given up before being sent.
  // Of these, sent, but cancelled by the client, whose patience had ended: no
  // errors of the server, and not among `errors`.
  uint64_t cut_off = 0;
  uint64_t completed = 0;          // Successes that ended in the measured time.
  int64_t last_completion_ns = 0;  // On the steady clock.
  std::map<absl::StatusCode, ErrorCount> errors;
  ServerTotals server;

  void AddError(const absl::Status& status);
  uint64_t error_count() const;
  void Merge(const LoadResult& other);
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_LOAD_LOAD_RESULT_H_
