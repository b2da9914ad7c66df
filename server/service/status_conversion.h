// The one place where an absl::Status becomes what goes over the wire.
#ifndef SPARSE_FFN_SERVER_SERVICE_STATUS_CONVERSION_H_
#define SPARSE_FFN_SERVER_SERVICE_STATUS_CONVERSION_H_

#include "absl/status/status.h"
#include "grpcpp/support/status.h"
#include "sparse_ffn/v1/ffn.pb.h"

namespace sparse_ffn {

// The same code and message.
grpc::Status ToGrpcStatus(const absl::Status& status);

// Makes `reply` the error reply of a stream item: `status` and the request's
// id, and nothing else. Keeps the memory of its fields.
void SetErrorReply(const absl::Status& status, uint64_t request_id,
                   v1::ForwardReply* reply);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_SERVICE_STATUS_CONVERSION_H_
