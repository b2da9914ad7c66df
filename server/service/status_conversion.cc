#include "server/service/status_conversion.h"

#include <string>

namespace sparse_ffn {

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      std::string(status.message()));
}

void SetErrorReply(const absl::Status& status, uint64_t request_id,
                   v1::ForwardReply* reply) {
  reply->Clear();
  reply->set_request_id(request_id);
  reply->set_status_code(static_cast<int>(status.code()));
  reply->set_status_message(std::string(status.message()));
}

}  // namespace sparse_ffn
