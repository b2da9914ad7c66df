// Owners of CUDA objects: unique_ptr with the handle as pointer, and functions
// that make them. Errors come back as Status and name the call.
#ifndef SPARSE_FFN_KERNELS_CUDA_CUDA_HANDLES_H_
#define SPARSE_FFN_KERNELS_CUDA_CUDA_HANDLES_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sparse_ffn::cuda {

// OK, or RESOURCE_EXHAUSTED for an allocation that failed, UNAVAILABLE for a
// missing driver or device, INTERNAL otherwise. `what` names the call.
absl::Status ToStatus(cudaError_t error, const char* what);

struct StreamDeleter {
  using pointer = cudaStream_t;
  void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
};
using Stream = std::unique_ptr<cudaStream_t, StreamDeleter>;
absl::StatusOr<Stream> NewStream();

struct EventDeleter {
  using pointer = cudaEvent_t;
  void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
};
using Event = std::unique_ptr<cudaEvent_t, EventDeleter>;
absl::StatusOr<Event> NewEvent();

struct DeviceDeleter {
  void operator()(std::byte* memory) const { cudaFree(memory); }
};
using DeviceMemory = std::unique_ptr<std::byte, DeviceDeleter>;
absl::StatusOr<DeviceMemory> NewDeviceMemory(size_t bytes);

struct PinnedDeleter {
  void operator()(std::byte* memory) const { cudaFreeHost(memory); }
};
using PinnedMemory = std::unique_ptr<std::byte, PinnedDeleter>;
// Page-locked host memory.
absl::StatusOr<PinnedMemory> NewPinnedMemory(size_t bytes);

struct GraphDeleter {
  using pointer = cudaGraphExec_t;
  void operator()(cudaGraphExec_t graph) const { cudaGraphExecDestroy(graph); }
};
// What was queued on a stream, to be launched again with one call.
using Graph = std::unique_ptr<cudaGraphExec_t, GraphDeleter>;
// Of what `queue` queues on `stream`. It runs nothing.
absl::StatusOr<Graph> RecordGraph(cudaStream_t stream,
                                  absl::FunctionRef<absl::Status()> queue);

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_CUDA_HANDLES_H_
