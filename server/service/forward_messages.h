// ForwardRequest to FfnTask, and FfnTaskResult to ForwardReply.
#ifndef SPARSE_FFN_SERVER_SERVICE_FORWARD_MESSAGES_H_
#define SPARSE_FFN_SERVER_SERVICE_FORWARD_MESSAGES_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/matrix.h"
#include "server/batcher.h"
#include "sparse_ffn/v1/ffn.pb.h"

namespace sparse_ffn {

// What requests are checked against.
struct RequestLimits {
  size_t hidden_size = 0;
  size_t intermediate_size = 0;
  size_t max_batch_tokens = 0;
  DataType weights_dtype = DataType::kBFloat16;
  std::vector<uint32_t> layers;  // Ascending.
};

// Sets layer, execution and hidden_states of `task`, a view of the request's
// bytes. NOT_FOUND for a layer that is not held, INVALID_ARGUMENT for anything
// else that ffn.proto rules out; the message names the field, what was expected
// and what came.
absl::Status ReadRequest(const v1::ForwardRequest& request,
                         const RequestLimits& limits, FfnTask* task);

// Fills every field of `reply` from the result of `request`, converting the
// output rows to the request's type in place.
void WriteReply(const v1::ForwardRequest& request, const RequestLimits& limits,
                const FfnTaskResult& result, v1::ForwardReply* reply);

v1::DataType ToWire(DataType dtype);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_SERVICE_FORWARD_MESSAGES_H_
