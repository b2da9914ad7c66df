#include "client/load/load_result.h"

#include <algorithm>

namespace sparse_ffn {

void ServerTotals::Add(const v1::ForwardStats& stats) {
  ++replies;
  tokens += static_cast<uint64_t>(stats.active_neurons_size());
  batch_tokens += stats.batch_tokens();
  queue_ns += stats.queue_ns();
  if (stats.gate_ns() > 0) ++timed_replies;
  gate_ns += stats.gate_ns();
  up_ns += stats.up_ns();
  down_ns += stats.down_ns();
  compute_ns += stats.compute_ns();
  for (const uint32_t active : stats.active_neurons()) {
    active_neurons += active;
    evaluated_neurons += stats.intermediate_size();
  }
  union_active_neurons += stats.union_active_neurons();
  union_evaluated_neurons += stats.intermediate_size();
  ++paths[stats.path()];
}

void ServerTotals::Merge(const ServerTotals& other) {
  replies += other.replies;
  tokens += other.tokens;
  batch_tokens += other.batch_tokens;
  queue_ns += other.queue_ns;
  timed_replies += other.timed_replies;
  gate_ns += other.gate_ns;
  up_ns += other.up_ns;
  down_ns += other.down_ns;
  compute_ns += other.compute_ns;
  active_neurons += other.active_neurons;
  evaluated_neurons += other.evaluated_neurons;
  union_active_neurons += other.union_active_neurons;
  union_evaluated_neurons += other.union_evaluated_neurons;
  for (const auto& [path, count] : other.paths) paths[path] += count;
}

void LoadResult::AddError(const absl::Status& status) {
  ErrorCount& error = errors[status.code()];
  if (error.count++ == 0)
    error.first_message.assign(status.message().data(),
                               status.message().size());
}

uint64_t LoadResult::error_count() const {
  uint64_t sum = 0;
  for (const auto& [code, error] : errors) sum += error.count;
  return sum;
}

void LoadResult::Merge(const LoadResult& other) {
  latency.Merge(other.latency);
  token_latency.Merge(other.token_latency);
  arrivals += other.arrivals;
  unsent += other.unsent;
  cut_off += other.cut_off;
  completed += other.completed;
  last_completion_ns = std::max(last_completion_ns, other.last_completion_ns);
  for (const auto& [code, error] : other.errors) {
    ErrorCount& mine = errors[code];
    if (mine.count == 0) mine.first_message = error.first_message;
    mine.count += error.count;
  }
  server.Merge(other.server);
}

}  // namespace sparse_ffn
