#include "tests/bench/graph_timer.h"

#include <utility>
#include <vector>

#include "kernels/cuda/cuda_handles.h"
#include "tests/bench/bench_figures.h"

namespace sparse_ffn::bench {

using cuda::ToStatus;

absl::StatusOr<double> MedianMicroseconds(
    cudaStream_t stream, const std::function<absl::Status()>& queue) {
  absl::Status status = queue();
  if (!status.ok()) return status;
  auto graph = cuda::RecordGraph(stream, queue);
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
