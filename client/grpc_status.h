// The one place where a gRPC status becomes an absl::Status.
#ifndef SPARSE_FFN_CLIENT_GRPC_STATUS_H_
#define SPARSE_FFN_CLIENT_GRPC_STATUS_H_

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace sparse_ffn {

// The same code and message; UNKNOWN for a code that gRPC does not define.
absl::Status ToAbslStatus(const grpc::Status& status);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_GRPC_STATUS_H_
