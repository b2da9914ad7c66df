#include "kernels/cuda/cuda_handles.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace sparse_ffn::cuda {
namespace {

absl::Status OfBytes(const absl::Status& status, size_t bytes) {
  return absl::Status(status.code(),
                      absl::StrCat(status.message(), ", ", bytes, " bytes"));
}

}  // namespace

absl::Status ToStatus(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string message =
      absl::StrCat(what, ": ", cudaGetErrorString(error), " (",
                   cudaGetErrorName(error), ")");
  switch (error) {
    case cudaErrorMemoryAllocation:
      return absl::ResourceExhaustedError(message);
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDevice:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
      return absl::UnavailableError(message);
    default:
      return absl::InternalError(message);
  }
}

absl::StatusOr<Stream> NewStream() {
  cudaStream_t stream = nullptr;
  absl::Status status =
      ToStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
               "cudaStreamCreate");
  if (!status.ok()) return status;
  return Stream(stream);
}

absl::StatusOr<Event> NewEvent() {
  cudaEvent_t event = nullptr;
  absl::Status status = ToStatus(cudaEventCreate(&event), "cudaEventCreate");
  if (!status.ok()) return status;
  return Event(event);
}

absl::StatusOr<DeviceMemory> NewDeviceMemory(size_t bytes) {
  void* memory = nullptr;
  absl::Status status = ToStatus(cudaMalloc(&memory, bytes), "cudaMalloc");
  if (!status.ok()) return OfBytes(status, bytes);
  return DeviceMemory(static_cast<std::byte*>(memory));
}

absl::StatusOr<PinnedMemory> NewPinnedMemory(size_t bytes) {
  void* memory = nullptr;
  absl::Status status =
      ToStatus(cudaMallocHost(&memory, bytes), "cudaMallocHost");
  if (!status.ok()) return OfBytes(status, bytes);
  return PinnedMemory(static_cast<std::byte*>(memory));
}

absl::StatusOr<Graph> RecordGraph(cudaStream_t stream,
                                  absl::FunctionRef<absl::Status()> queue) {
  absl::Status status =
      ToStatus(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
               "cudaStreamBeginCapture");
  if (!status.ok()) return status;
  status = queue();
  cudaGraph_t recorded = nullptr;
  status.Update(ToStatus(cudaStreamEndCapture(stream, &recorded),
                         "cudaStreamEndCapture"));
  cudaGraphExec_t made = nullptr;
  if (status.ok()) {
    status = ToStatus(cudaGraphInstantiate(&made, recorded, 0),
                      "cudaGraphInstantiate");
  }
  if (recorded != nullptr) cudaGraphDestroy(recorded);
  Graph graph(made);
  if (status.ok()) {
    status = ToStatus(cudaGraphUpload(graph.get(), stream), "cudaGraphUpload");
  }
  if (status.ok()) return graph;
  // The caller has it; later launches are not to take it for theirs.
  cudaGetLastError();
  return status;
}

}  // namespace sparse_ffn::cuda
