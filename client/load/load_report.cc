#include "client/load/load_report.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/ffn_client.h"

namespace sparse_ffn {
namespace {

constexpr std::pair<const char*, double> kQuantiles[] = {
    {"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}};

double Ratio(double part, double whole) {
  return whole == 0 ? 0 : part / whole;
}

double MeanUs(uint64_t sum_ns, uint64_t count) {
  return Ratio(static_cast<double>(sum_ns) / 1e3, static_cast<double>(count));
}

double Sparsity(uint64_t active, uint64_t evaluated) {
  return evaluated == 0 ? 0
                        : 1 - Ratio(static_cast<double>(active),
                                    static_cast<double>(evaluated));
}

const char* ShapeName(LoadShape shape) {
  switch (shape) {
    case LoadShape::kClosed:
      return "closed";
    case LoadShape::kOpen:
      return "open";
    case LoadShape::kDecode:
      break;
  }
  return "decode";
}

const char* LayerOrderName(LayerOrder order) {
  return order == LayerOrder::kRandom ? "random" : "in turn";
}

const char* ExecutionName(v1::Execution execution) {
  switch (execution) {
    case v1::EXECUTION_SPARSE:
      return "sparse";
    case v1::EXECUTION_DENSE:
      return "dense";
    default:
      return "auto";
  }
}

double PerSecond(double count, const LoadReport& report) {
  return Ratio(count, report.window_seconds);
}

double Achieved(const LoadReport& report) {
  return PerSecond(static_cast<double>(report.result.completed), report);
}

double Offered(const LoadReport& report) {
  return report.plan.rate_per_second * static_cast<double>(report.plan.clients);
}

std::string LatencyLine(const char* name, const LatencyHistogram& histogram) {
  std::string line = absl::StrFormat("%-10s", name);
  for (const auto& [label, quantile] : kQuantiles) {
    absl::StrAppendFormat(&line, " %10.1f",
                          histogram.QuantileNs(quantile) / 1e3);
  }
  absl::StrAppendFormat(&line, " %10.1f %10.1f %10u\n",
                        static_cast<double>(histogram.max_ns()) / 1e3,
                        histogram.mean_ns() / 1e3, histogram.count());
  return line;
}

nlohmann::json LatencyJson(const LatencyHistogram& histogram) {
  nlohmann::json json;
  for (const auto& [label, quantile] : kQuantiles) {
    json[label] = histogram.QuantileNs(quantile) / 1e3;
  }
  json["max"] = static_cast<double>(histogram.max_ns()) / 1e3;
  json["mean"] = histogram.mean_ns() / 1e3;
  json["count"] = histogram.count();
  return json;
}

std::string Headline(const LoadReport& report) {
  const LoadPlan& plan = report.plan;
  return absl::StrFormat(
      "%s: %s on %s (%s), %d layers of %d x %d in %s\n"
      "%s loop, %s, clients %d, in flight %d each, tokens %d, %s, %s kernels, "
      "layers %s, %.1f s measured\n",
      report.target, report.model.model_name(), report.model.backend(),
      report.model.device_name(), plan.layers.size(),
      report.model.hidden_size(), report.model.intermediate_size(),
      WireName(report.model.weights_dtype()), ShapeName(plan.shape),
      plan.stream ? "stream" : "unary", plan.clients, plan.in_flight,
      plan.tokens, WireName(plan.dtype), ExecutionName(plan.execution),
      LayerOrderName(plan.layer_order), report.window_seconds);
}

std::string RateLine(const LoadReport& report) {
  const double achieved = Achieved(report);
  std::string line = absl::StrFormat("achieved   %.1f requests/s", achieved);
  if (report.plan.shape == LoadShape::kOpen) {
    absl::StrAppendFormat(&line, " of %.1f offered", Offered(report));
  }
  absl::StrAppendFormat(&line, ", %.1f tokens/s",
                        achieved * static_cast<double>(report.plan.tokens));
  if (report.plan.shape == LoadShape::kDecode) {
    absl::StrAppendFormat(
        &line, " a layer, %.1f decode steps/s",
        PerSecond(static_cast<double>(report.result.token_latency.count()),
                  report));
  }
  return absl::StrCat(line, "\n");
}

std::string ErrorLines(const LoadResult& result, const LoadPlan& plan) {
  std::string lines = absl::StrFormat("errors     %u of %u requests\n",
                                      result.error_count(), result.arrivals);
  for (const auto& [code, error] : result.errors) {
    absl::StrAppendFormat(&lines, "           %s %u, first: %s\n",
                          absl::StatusCodeToString(code), error.count,
                          error.first_message);
  }
  if (result.cut_off > 0) {
    absl::StrAppendFormat(
        &lines,
        "cut off    %u requests had no reply %g s after the last one "
        "was due, and were cancelled\n",
        result.cut_off, static_cast<double>(plan.patience_ns) / 1e9);
  }
  if (result.unsent > 0) {
    absl::StrAppendFormat(&lines,
                          "unsent     %u requests were due but never sent: the "
                          "server is too slow for this rate\n",
                          result.unsent);
  }
  return lines;
}

std::string ServerLines(const ServerTotals& server) {
  if (server.replies == 0) return "";
  std::string paths = absl::StrJoin(
      server.paths, ", ", [&](std::string* out, const auto& path) {
        absl::StrAppendFormat(out, "%s %.1f %%", path.first,
                              100 * Ratio(static_cast<double>(path.second),
                                          static_cast<double>(server.replies)));
      });
  return absl::StrFormat(
      "server us  queue %.1f, gate %.1f, up %.1f, down %.1f, compute %.1f "
      "(means)\n"
      "server     sparsity %.2f %% a token, %.2f %% a batch; batch %.2f "
      "tokens; path %s\n",
      MeanUs(server.queue_ns, server.replies),
      MeanUs(server.gate_ns, server.timed_replies),
      MeanUs(server.up_ns, server.timed_replies),
      MeanUs(server.down_ns, server.timed_replies),
      MeanUs(server.compute_ns, server.replies),
      100 * Sparsity(server.active_neurons, server.evaluated_neurons),
      100 *
          Sparsity(server.union_active_neurons, server.union_evaluated_neurons),
      Ratio(static_cast<double>(server.batch_tokens),
            static_cast<double>(server.replies)),
      paths);
}

nlohmann::json ServerJson(const ServerTotals& server) {
  return {{"queue_us", MeanUs(server.queue_ns, server.replies)},
          {"gate_us", MeanUs(server.gate_ns, server.timed_replies)},
          {"up_us", MeanUs(server.up_ns, server.timed_replies)},
          {"down_us", MeanUs(server.down_ns, server.timed_replies)},
          {"compute_us", MeanUs(server.compute_ns, server.replies)},
          {"activation_sparsity",
           Sparsity(server.active_neurons, server.evaluated_neurons)},
          {"union_sparsity", Sparsity(server.union_active_neurons,
                                      server.union_evaluated_neurons)},
          {"batch_tokens", Ratio(static_cast<double>(server.batch_tokens),
                                 static_cast<double>(server.replies))},
          {"replies_by_path", server.paths}};
}

nlohmann::json PlanJson(const LoadReport& report) {
  const LoadPlan& plan = report.plan;
  return {{"shape", ShapeName(plan.shape)},
          {"mode", plan.stream ? "stream" : "unary"},
          {"busy_poll", plan.busy_poll},
          {"clients", plan.clients},
          {"in_flight", plan.in_flight},
          {"tokens", plan.tokens},
          {"layers", plan.layers},
          {"layer_order", LayerOrderName(plan.layer_order)},
          {"dtype", WireName(plan.dtype)},
          {"execution", ExecutionName(plan.execution)},
          {"seed", plan.seed}};
}

}  // namespace

std::string FormatLoadReport(const LoadReport& report) {
  std::string text = Headline(report);
  absl::StrAppendFormat(&text,
                        "latency us %10s %10s %10s %10s %10s %10s %10s\n",
                        "p50", "p90", "p99", "p99.9", "max", "mean", "count");
  absl::StrAppend(&text, LatencyLine("request", report.result.latency));
  if (report.plan.shape == LoadShape::kDecode) {
    absl::StrAppend(&text,
                    LatencyLine("all layers", report.result.token_latency));
  }
  absl::StrAppend(&text, RateLine(report),
                  ErrorLines(report.result, report.plan),
                  ServerLines(report.result.server));
  return text;
}

nlohmann::json LoadReportToJson(const LoadReport& report) {
  const LoadResult& result = report.result;
  const double achieved = Achieved(report);
  nlohmann::json json = {
      {"target", report.target},
      {"model", report.model.model_name()},
      {"backend", report.model.backend()},
      {"device_name", report.model.device_name()},
      {"weights_dtype", WireName(report.model.weights_dtype())},
      {"load", PlanJson(report)},
      {"window_seconds", report.window_seconds},
      {"requests", result.arrivals},
      {"succeeded", result.latency.count()},
      {"failed", result.error_count()},
      {"cut_off", result.cut_off},
      {"unsent", result.unsent},
      {"latency_us", LatencyJson(result.latency)},
      {"achieved_requests_per_second", achieved},
      {"tokens_per_second", achieved * static_cast<double>(report.plan.tokens)},
      {"errors", nlohmann::json::object()},
      {"server_mean", ServerJson(result.server)}};
  for (const auto& [code, error] : result.errors) {
    json["errors"][absl::StatusCodeToString(code)] = {
        {"count", error.count}, {"first_message", error.first_message}};
  }
  if (report.plan.shape == LoadShape::kOpen) {
    json["offered_requests_per_second"] = Offered(report);
  }
  if (report.plan.shape == LoadShape::kDecode) {
    json["token_latency_us"] = LatencyJson(result.token_latency);
    json["decode_steps_per_second"] =
        PerSecond(static_cast<double>(result.token_latency.count()), report);
  }
  return json;
}

}  // namespace sparse_ffn
