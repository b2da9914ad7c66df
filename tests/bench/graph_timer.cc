#include "tests/bench/graph_timer.h"

#include <memory>
#include <utility>
#include <vector>

#include "kernels/cuda/cuda_handles.h"
#include "tests/bench/bench_figures.h"

namespace sparse_ffn::bench {
namespace {

using cuda::ToStatus;

struct GraphDeleter {
  using pointer = cudaGraph_t;
  void operator()(cudaGraph_t graph) const { cudaGraphDestroy(graph); }
};
struct GraphExecDeleter {
  using pointer = cudaGraphExec_t;
  void operator()(cudaGraphExec_t graph) const { cudaGraphExecDestroy(graph); }
};
using GraphExec = std::unique_ptr<cudaGraphExec_t, GraphExecDeleter>;

absl::StatusOr<GraphExec> Capture(cudaStream_t stream,
                                  const std::function<absl::Status()>& queue) {
  absl::Status status =
      ToStatus(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
               "cudaStreamBeginCapture");
  if (!status.ok()) return status;
  status = queue();
  cudaGraph_t captured = nullptr;
  status.Update(ToStatus(cudaStreamEndCapture(stream, &captured),
                         "cudaStreamEndCapture"));
  if (!status.ok()) return status;
  const std::unique_ptr<cudaGraph_t, GraphDeleter> graph(captured);
  cudaGraphExec_t exec = nullptr;
  status = ToStatus(cudaGraphInstantiate(&exec, graph.get(), 0),
                    "cudaGraphInstantiate");
  if (!status.ok()) return status;
  return GraphExec(exec);
}

}  // namespace

absl::StatusOr<double> MedianMicroseconds(
    cudaStream_t stream, const std::function<absl::Status()>& queue) {
  absl::Status status = queue();
  if (!status.ok()) return status;
  auto graph = Capture(stream, queue);
  if (!graph.ok()) return graph.status();
  auto begin = cuda::NewEvent();
  if (!begin.ok()) return begin.status();
  auto end = cuda::NewEvent();
  if (!end.ok()) return end.status();
  constexpr int kWarmUp = 2;
  std::vector<double> times;
  for (int i = 0; i < kReplays + kWarmUp; ++i) {
    float milliseconds = 0;
    status.Update(
        ToStatus(cudaEventRecord(begin->get(), stream), "cudaEventRecord"));
    status.Update(
        ToStatus(cudaGraphLaunch(graph->get(), stream), "cudaGraphLaunch"));
    status.Update(
        ToStatus(cudaEventRecord(end->get(), stream), "cudaEventRecord"));
    status.Update(
        ToStatus(cudaEventSynchronize(end->get()), "replaying the graph"));
    status.Update(
        ToStatus(cudaEventElapsedTime(&milliseconds, begin->get(), end->get()),
                 "cudaEventElapsedTime"));
    if (!status.ok()) return status;
    if (i >= kWarmUp) times.push_back(1e3 * milliseconds);
  }
  return Median(std::move(times));
}

}  // namespace sparse_ffn::bench
