// sparse-ffn-load: puts load on a server and measures latency.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/ffn_client.h"
#include "client/load/input_rows.h"
#include "client/load/load_client.h"
#include "client/load/load_flags.h"
#include "client/load/load_report.h"
#include "client/load/result_file.h"
#include "client/npy.h"
#include "client/random_inputs.h"

namespace sparse_ffn {
namespace {

constexpr size_t kRandomRows = 64;

std::atomic<bool> stop_requested{false};

void OnInterrupt(int /*signal*/) { stop_requested = true; }

// The first interrupt ends the load; a second one ends the program.
void CatchInterrupts() {
  struct sigaction action = {};
  action.sa_handler = OnInterrupt;
  action.sa_flags = SA_RESETHAND;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

absl::StatusOr<std::vector<std::unique_ptr<FfnClient>>> ConnectAll(
    const LoadFlags& flags) {
  FfnClientOptions options;
  options.connect_timeout = absl::Seconds(flags.connect_timeout_seconds);
  std::vector<std::unique_ptr<FfnClient>> connections;
  for (size_t i = 0; i < flags.clients; ++i) {
    auto connection = FfnClient::Connect(flags.target, options);
    if (!connection.ok()) return connection.status();
    connections.push_back(*std::move(connection));
  }
  return connections;
}

absl::StatusOr<InputRows> MakeInputs(const LoadFlags& flags,
                                     const v1::GetModelInfoReply& model,
                                     const LoadPlan& plan) {
  absl::StatusOr<DataType> dtype = FromWire(plan.dtype);
  if (!dtype.ok()) return dtype.status();
  const size_t hidden_size = model.hidden_size();
  if (flags.inputs.empty()) {
    const std::vector<float> rows =
        RandomInputs(kRandomRows, hidden_size, flags.seed);
    return InputRows(
        {rows.data(), kRandomRows, hidden_size, DataType::kFloat32}, *dtype,
        plan.tokens);
  }
  absl::StatusOr<NpyArray> array = ReadHiddenStates(flags.inputs, hidden_size);
  if (!array.ok()) return array.status();
  return InputRows(array->view(), *dtype, plan.tokens);
}

void PrintProgress(const std::vector<std::unique_ptr<LoadClient>>& clients,
                   double elapsed_seconds, uint64_t totals_before[3]) {
  uint64_t totals[3] = {};
  for (const auto& client : clients) {
    totals[0] += client->live().completed.load(std::memory_order_relaxed);
    totals[1] += client->live().errors.load(std::memory_order_relaxed);
    totals[2] += client->live().latency_sum_ns.load(std::memory_order_relaxed);
  }
  const uint64_t completed = totals[0] - totals_before[0];
  const uint64_t latency_ns = totals[2] - totals_before[2];
  const double mean_us = completed == 0
                             ? 0
                             : static_cast<double>(latency_ns) / 1e3 /
                                   static_cast<double>(completed);
  absl::FPrintF(stderr, "%4.0f s  %7u replies  mean %9.1f us  %u errors\n",
                elapsed_seconds, completed, mean_us,
                totals[1] - totals_before[1]);
  std::copy(totals, totals + 3, totals_before);
}

// Runs every client on a thread of its own; a line each second.
void RunClients(const std::vector<std::unique_ptr<LoadClient>>& clients) {
  std::atomic<size_t> running{clients.size()};
  std::vector<std::thread> threads;
  threads.reserve(clients.size());
  for (const auto& client : clients) {
    threads.emplace_back([&running, client = client.get()] {
      client->Run(&stop_requested);
      --running;
    });
  }
  uint64_t totals[3] = {};
  const int64_t start_ns = SteadyNowNs();
  int64_t next_line_ns = start_ns + 1'000'000'000;
  while (running > 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    if (SteadyNowNs() < next_line_ns) continue;
    PrintProgress(clients, static_cast<double>(next_line_ns - start_ns) / 1e9,
                  totals);
    next_line_ns += 1'000'000'000;
  }
  for (std::thread& thread : threads) thread.join();
}

void SetTimes(const LoadFlags& flags, LoadPlan* plan) {
  plan->start_ns = SteadyNowNs();
  plan->measure_ns =
      plan->start_ns + static_cast<int64_t>(flags.warmup_seconds * 1e9);
  if (flags.duration_seconds > 0) {
    plan->end_ns =
        plan->measure_ns + static_cast<int64_t>(flags.duration_seconds * 1e9);
  }
}

double WindowSeconds(const LoadFlags& flags, const LoadPlan& plan,
                     const LoadResult& result) {
  int64_t end_ns = plan.end_ns;
  if (stop_requested || flags.requests > 0) {
    end_ns = std::min(end_ns, result.last_completion_ns);
  }
  return std::max(0.0, static_cast<double>(end_ns - plan.measure_ns) / 1e9);
}

absl::StatusOr<LoadReport> RunLoad(const LoadFlags& flags) {
  auto connections = ConnectAll(flags);
  if (!connections.ok()) return connections.status();
  LoadReport report;
  report.target = flags.target;
  auto model = connections->front()->WaitForModelInfo(
      absl::Seconds(flags.connect_timeout_seconds));
  if (!model.ok()) return model.status();
  report.model = *std::move(model);
  absl::StatusOr<LoadPlan> plan = MakeLoadPlan(flags, report.model);
  if (!plan.ok()) return plan.status();
  absl::StatusOr<InputRows> inputs = MakeInputs(flags, report.model, *plan);
  if (!inputs.ok()) return inputs.status();
  SetTimes(flags, &*plan);
  std::vector<std::unique_ptr<LoadClient>> clients;
  for (size_t i = 0; i < flags.clients; ++i) {
    clients.push_back(std::make_unique<LoadClient>((*connections)[i]->channel(),
                                                   *plan, *inputs, i));
  }
  RunClients(clients);
  for (const auto& client : clients) report.result.Merge(client->result());
  report.plan = *plan;
  report.window_seconds = WindowSeconds(flags, *plan, report.result);
  return report;
}

// 0 where every request of the measured time was seen through to its end.
int ExitCode(const LoadResult& result) {
  if (result.latency.count() == 0) {
    absl::FPrintF(stderr, "sparse-ffn-load: no request succeeded\n");
    return 1;
  }
  if (result.cut_off == 0 && result.unsent == 0) return 0;
  absl::FPrintF(stderr,
                "sparse-ffn-load: gave up: %u requests were cut off, %u never "
                "sent\n",
                result.cut_off, result.unsent);
  return 1;
}

int Failed(const absl::Status& status) {
  absl::FPrintF(stderr, "sparse-ffn-load: %s\n", status.message());
  return 1;
}

int Main(int argc, char** argv) {
  LoadFlags flags;
  const std::optional<int> exit_code = ParseLoadFlags(argc, argv, &flags);
  if (exit_code) return *exit_code;
  CatchInterrupts();
  std::optional<ResultFile> json;
  if (!flags.json.empty()) {
    absl::StatusOr<ResultFile> file = ResultFile::Open(flags.json);
    if (!file.ok()) return Failed(file.status());
    json.emplace(*std::move(file));
  }
  absl::StatusOr<LoadReport> report = RunLoad(flags);
  if (!report.ok()) return Failed(report.status());
  absl::PrintF("%s", FormatLoadReport(*report));
  if (json.has_value()) {
    const std::string text = LoadReportToJson(*report).dump(
        2, ' ', false, nlohmann::json::error_handler_t::replace);
    const absl::Status written = json->Write(text + "\n");
    if (!written.ok()) return Failed(written);
  }
  return ExitCode(report->result);
}

}  // namespace
}  // namespace sparse_ffn

int main(int argc, char** argv) {
  try {
    return sparse_ffn::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "sparse-ffn-load: %s\n", error.what());
    return 1;
  }
}
