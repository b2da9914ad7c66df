#include "server/prepare_paths.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/logging.h"
#include "server/path_costs_file.h"

namespace sparse_ffn {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kLogEvery{1};

std::string Seconds(Clock::duration duration) {
  return absl::StrFormat("%.2f",
                         std::chrono::duration<double>(duration).count());
}

// Such as "1:1.00 8:0.71 32:never": tokens, and the union density up to which
// a batch of as many is sparse.
std::string SparseUpTo(const FfnBackend& backend, size_t max_batch_tokens) {
  std::string text;
  for (size_t tokens : {1, 8, 32}) {
    if (tokens > max_batch_tokens) break;
    const float density = backend.SparseUpTo(tokens);
    absl::StrAppend(&text, text.empty() ? "" : " ", tokens, ":",
                    density < 0 ? "never" : absl::StrFormat("%.2f", density));
  }
  return text;
}

}  // namespace

absl::StatusOr<bool> ReadPaths(const ServerConfig& config, const FfnConfig& ffn,
                               FfnBackend* backend) {
  if (ffn.deterministic) return true;
  if (!IsCuda(*backend)) {
    if (!config.path_costs.empty()) {
      LogWarning("--path-costs is not used",
                 {{"why", "the backend is always sparse"},
                  {"backend", backend->name()}});
    }
    return true;
  }
  if (config.path_costs.empty()) return false;
  const absl::StatusOr<std::vector<PathCost>> costs =
      ReadPathCosts(config.path_costs, ffn, backend->device_name());
  if (absl::IsNotFound(costs.status())) return false;
  if (!costs.ok()) return costs.status();
  const absl::Status status = backend->SetPathCosts(*costs);
  if (!status.ok()) {
    return absl::Status(
        status.code(), absl::StrCat(config.path_costs, ": ", status.message()));
  }
  LogInfo("path costs read",
          {{"file", config.path_costs},
           {"sparse_up_to", SparseUpTo(*backend, ffn.max_batch_tokens)}});
  return true;
}

absl::Status MeasurePaths(const ServerConfig& config, const FfnConfig& ffn,
                          FfnBackend* backend,
                          const std::function<void()>& progress) {
  if (config.measure_seconds == 0) return absl::OkStatus();
  const Clock::time_point start = Clock::now();
  Clock::time_point logged = start;
  const auto costs = backend->MeasurePaths(config.measure_seconds, [&] {
    progress();
    if (Clock::now() - logged < kLogEvery) return;
    logged = Clock::now();
    LogInfo("measuring paths", {{"seconds", Seconds(logged - start)}});
  });
  if (!costs.ok()) return costs.status();
  if (costs->empty()) {
    LogWarning("no path could be measured; a fixed rule chooses",
               {{"seconds", Seconds(Clock::now() - start)}});
    return absl::OkStatus();
  }
  absl::Status status = backend->SetPathCosts(*costs);
  if (!status.ok()) return status;
  size_t max_tokens = 0;
  for (const PathCost& cost : *costs) {
    max_tokens = std::max(max_tokens, cost.tokens);
  }
  LogInfo("paths measured",
          {{"sparse_up_to", SparseUpTo(*backend, ffn.max_batch_tokens)},
           {"max_tokens", max_tokens},
           {"seconds", Seconds(Clock::now() - start)}});
  if (config.path_costs.empty()) return absl::OkStatus();
  return WritePathCosts(config.path_costs, ffn, backend->device_name(), *costs);
}

}  // namespace sparse_ffn
