#include "client/cli/forward_command.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/ffn_client.h"
#include "client/npy.h"
#include "kernels/matrix.h"
#include "server/checkpoint/new_file.h"

namespace sparse_ffn {
namespace {

// A matrix and its memory.
struct OwnedMatrix {
  OwnedMatrix(size_t rows, size_t cols, DataType dtype)
      : data(rows * cols * DataTypeBytes(dtype)),
        view{data.data(), rows, cols, dtype} {}
  std::vector<std::byte> data;
  Matrix view;
};

Matrix RowRange(Matrix matrix, size_t first, size_t rows) {
  return {matrix.row(first), rows, matrix.cols, matrix.dtype};
}

void PrintHeading() {
  absl::PrintF("%8s %6s %-6s %9s %6s %9s %9s %9s %9s %10s %10s\n", "row",
               "tokens", "path", "sparsity", "batch", "queue us", "gate us",
               "up us", "down us", "compute us", "total us");
}

void PrintStats(size_t first, size_t tokens, const v1::ForwardStats& stats,
                absl::Duration elapsed) {
  const uint64_t active =
      std::accumulate(stats.active_neurons().begin(),
                      stats.active_neurons().end(), uint64_t{0});
  const double evaluated = static_cast<double>(stats.intermediate_size()) *
                           static_cast<double>(tokens);
  const auto us = [](uint64_t ns) { return static_cast<double>(ns) / 1e3; };
  absl::PrintF(
      "%8u %6u %-6s %7.2f %% %6u %9.1f %9.1f %9.1f %9.1f %10.1f "
      "%10.1f\n",
      first, tokens, stats.path(),
      100 - 100 * static_cast<double>(active) / evaluated, stats.batch_tokens(),
      us(stats.queue_ns()), us(stats.gate_ns()), us(stats.up_ns()),
      us(stats.down_ns()), us(stats.compute_ns()),
      absl::ToDoubleMicroseconds(elapsed));
}

absl::Status SendAll(FfnClient* client, int layer, Matrix input, Matrix output,
                     size_t max_tokens, const ForwardOptions& options) {
  PrintHeading();
  for (size_t first = 0; first < input.rows; first += max_tokens) {
    const size_t tokens = std::min(max_tokens, input.rows - first);
    v1::ForwardStats stats;
    const absl::Time start = absl::Now();
    const absl::Status status =
        client->Forward(layer, RowRange(input, first, tokens),
                        RowRange(output, first, tokens), options, &stats);
    if (!status.ok()) {
      return absl::Status(status.code(), absl::StrCat("rows ", first, " to ",
                                                      first + tokens - 1, ": ",
                                                      status.message()));
    }
    PrintStats(first, tokens, stats, absl::Now() - start);
  }
  return absl::OkStatus();
}

absl::Status WriteOutput(Matrix output, const std::string& path) {
  if (output.dtype == DataType::kFloat16) return WriteNpy(output, path);
  OwnedMatrix wide(output.rows, output.cols, DataType::kFloat32);
  Convert(output, wide.view);
  return WriteNpy(wide.view, path);
}

absl::StatusOr<ForwardOptions> CallOptions(
    const ForwardCommandOptions& options) {
  ForwardOptions call_options;
  absl::StatusOr<v1::Execution> execution = ParseExecution(options.execution);
  if (!execution.ok()) return execution.status();
  call_options.execution = *execution;
  if (options.deadline_ms > 0) {
    call_options.timeout = absl::Milliseconds(options.deadline_ms);
  }
  return call_options;
}

}  // namespace

absl::Status RunForward(const ForwardCommandOptions& options) {
  // Before the work, so that none is done for nothing. This file is discarded
  // at once: a signal while the server computes must leave none behind.
  absl::Status writable = NewFile::Create(options.outputs).status();
  if (!writable.ok()) return writable;
  absl::StatusOr<ForwardOptions> call_options = CallOptions(options);
  if (!call_options.ok()) return call_options.status();
  const absl::StatusOr<ConnectedServer> server = ConnectTo(options.target);
  if (!server.ok()) return server.status();
  absl::StatusOr<NpyArray> inputs =
      ReadHiddenStates(options.inputs, server->info.hidden_size());
  if (!inputs.ok()) return inputs.status();
  absl::StatusOr<DataType> dtype =
      options.dtype.empty() ? inputs->dtype : DataTypeNamed(options.dtype);
  if (!dtype.ok()) return dtype.status();
  OwnedMatrix input(inputs->rows, inputs->cols, *dtype);
  OwnedMatrix output(inputs->rows, inputs->cols, *dtype);
  Convert(inputs->view(), input.view);
  absl::Status sent =
      SendAll(server->client.get(), options.layer, input.view, output.view,
              server->info.max_batch_tokens(), *call_options);
  if (!sent.ok()) return sent;
  return WriteOutput(output.view, options.outputs);
}

}  // namespace sparse_ffn
