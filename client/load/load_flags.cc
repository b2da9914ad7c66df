#include "client/load/load_flags.h"

#include <algorithm>

#include "CLI/CLI.hpp"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/command_line.h"
#include "client/ffn_client.h"
#include "client/number_option.h"
#include "server/checkpoint/layer_ranges.h"

namespace sparse_ffn {
namespace {

constexpr size_t kOpenLoopInFlight = 64;
constexpr double kMostRate = 1e9;
constexpr int64_t kMostRequests = 1'000'000'000'000;

void AddShapeOptions(CLI::App* app, LoadFlags* flags) {
  app->add_option("--target", flags->target,
                  "Server, as host:port or unix:path")
      ->capture_default_str();
  app->add_option("--clients", flags->clients,
                  "Clients, each with a thread and a connection")
      ->check(IntegerFrom(1, 4096))
      ->capture_default_str();
  app->add_option("--in-flight", flags->in_flight,
                  "Most requests in flight of one client (default 1; 64 with "
                  "--rate)")
      ->check(IntegerFrom(1, 65536));
  auto* rate = app->add_option(
      "--rate", flags->rate,
      "Open loop: requests a second of all clients, at Poisson intervals; "
      "latency counts from the intended start");
  rate->check(NumberFrom(kLeastPositive, kMostRate));
  app->add_flag("--decode", flags->decode,
                "Each client walks all layers for each token, the next layer "
                "after the reply of the one before")
      ->excludes(rate);
  app->add_option("--mode", flags->mode, "One call a request, or one stream")
      ->check(CLI::IsMember({"unary", "stream"}))
      ->capture_default_str();
  app->add_option("--tokens", flags->tokens, "Tokens of one request")
      ->check(IntegerFrom(1, kMostTokens))
      ->capture_default_str();
  app->add_option("--layer", flags->layer,
                  "Layer number, 'all' (in turn) or 'random'")
      ->capture_default_str();
  app->add_option("--dtype", flags->dtype,
                  "Type on the wire (default: that of the server's weights)")
      ->check(CLI::IsMember({"float32", "float16", "bfloat16"}));
  app->add_option("--execution", flags->execution, "Kernels")
      ->check(CLI::IsMember({"auto", "sparse", "dense"}))
      ->capture_default_str();
  app->add_option("--inputs", flags->inputs,
                  "Hidden states, .npy [rows, hidden_size] (default: random)");
}

void AddRunOptions(CLI::App* app, LoadFlags* flags) {
  app->add_option("--duration", flags->duration_seconds,
                  "Measured seconds (default 10, without --requests)")
      ->check(NumberFrom(kLeastPositive, kMostSeconds));
  app->add_option("--requests", flags->requests,
                  "Measured requests of all clients")
      ->check(IntegerFrom(1, kMostRequests));
  app->add_option("--warmup", flags->warmup_seconds,
                  "Seconds before the measured time")
      ->check(NumberFrom(0, kMostSeconds))
      ->capture_default_str();
  app->add_option("--deadline-ms", flags->deadline_ms,
                  "Deadline of each call, milliseconds; unary only")
      ->check(NumberFrom(kLeastPositive, 1e3 * kMostSeconds));
  app->add_option("--connect-timeout", flags->connect_timeout_seconds,
                  "Seconds to wait for a connection, and as long again for the "
                  "server to load its model")
      ->check(NumberFrom(kLeastPositive, kMostSeconds))
      ->capture_default_str();
  app->add_flag("--busy-poll", flags->busy_poll,
                "Never sleep while waiting: lower latency, one busy core a "
                "client");
  app->add_option("--seed", flags->seed, "Seed of inputs and arrivals")
      ->check(AnySeed())
      ->capture_default_str();
  app->add_option("--json", flags->json, "Write the result to this file too");
  app->footer(
      "Ends with 0 where every request that was due was sent and seen "
      "to its end, and at least one succeeded. What is unanswered 5 "
      "seconds after the last one was due is cut off. Without --rate, a "
      "request that failed is followed by the next one after 10 ms, and "
      "where that fails too after twice as long, up to a second.");
}

absl::Status SetLayers(const LoadFlags& flags,
                       const v1::GetModelInfoReply& model, LoadPlan* plan) {
  plan->layers.assign(model.layers().begin(), model.layers().end());
  if (flags.layer == "all") return absl::OkStatus();
  if (flags.decode) {
    return absl::InvalidArgumentError(
        "--decode walks all layers; drop --layer");
  }
  if (flags.layer == "random") {
    plan->layer_order = LayerOrder::kRandom;
    return absl::OkStatus();
  }
  uint32_t layer = 0;
  if (!absl::SimpleAtoi(flags.layer, &layer)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--layer ", flags.layer,
                     " is neither a number nor 'all' nor 'random'"));
  }
  const auto& held = model.layers();
  if (std::find(held.begin(), held.end(), layer) == held.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the server does not hold layer ", layer, ", only ",
                     FormatLayers({held.begin(), held.end()})));
  }
  plan->layers = {layer};
  return absl::OkStatus();
}

absl::Status CheckFlags(const LoadFlags& flags,
                        const v1::GetModelInfoReply& model) {
  if (flags.tokens > model.max_batch_tokens()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tokens ", flags.tokens, ": the server takes at most ",
                     model.max_batch_tokens(), " tokens a request"));
  }
  if (flags.deadline_ms > 0 && flags.mode == "stream") {
    return absl::InvalidArgumentError(
        "--deadline-ms is for --mode unary: a stream has one deadline for all "
        "its requests");
  }
  return absl::OkStatus();
}

}  // namespace

std::optional<int> ParseLoadFlags(int argc, char** argv, LoadFlags* flags) {
  CLI::App app("Puts load on a sparse-ffn-server and measures latency.",
               "sparse-ffn-load");
  AddShapeOptions(&app, flags);
  AddRunOptions(&app, flags);
  const std::optional<int> exit_code = ParseCommandLine(&app, argc, argv);
  if (exit_code.has_value()) return exit_code;
  if (flags->in_flight == 0) {
    flags->in_flight = flags->rate > 0 ? kOpenLoopInFlight : 1;
  }
  if (flags->duration_seconds == 0 && flags->requests == 0) {
    flags->duration_seconds = 10;
  }
  return std::nullopt;
}

absl::StatusOr<LoadPlan> MakeLoadPlan(const LoadFlags& flags,
                                      const v1::GetModelInfoReply& model) {
  absl::Status checked = CheckFlags(flags, model);
  if (!checked.ok()) return checked;
  LoadPlan plan;
  absl::Status layers = SetLayers(flags, model, &plan);
  if (!layers.ok()) return layers;
  absl::StatusOr<DataType> dtype = flags.dtype.empty()
                                       ? FromWire(model.weights_dtype())
                                       : DataTypeNamed(flags.dtype);
  if (!dtype.ok()) return dtype.status();
  absl::StatusOr<v1::Execution> execution = ParseExecution(flags.execution);
  if (!execution.ok()) return execution.status();
  plan.shape = flags.decode     ? LoadShape::kDecode
               : flags.rate > 0 ? LoadShape::kOpen
                                : LoadShape::kClosed;
  plan.stream = flags.mode == "stream";
  plan.busy_poll = flags.busy_poll;
  plan.clients = flags.clients;
  plan.in_flight = flags.in_flight;
  plan.tokens = flags.tokens;
  plan.rate_per_second = flags.rate / static_cast<double>(flags.clients);
  plan.dtype = ToWire(*dtype);
  plan.execution = *execution;
  if (flags.deadline_ms > 0) {
    plan.timeout = absl::Milliseconds(flags.deadline_ms);
  }
  plan.seed = flags.seed;
  if (flags.requests > 0) plan.requests = flags.requests;
  return plan;
}

}  // namespace sparse_ffn
