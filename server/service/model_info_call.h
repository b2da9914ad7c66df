// GetModelInfo, from acceptance to the end.
#ifndef SPARSE_FFN_SERVER_SERVICE_MODEL_INFO_CALL_H_
#define SPARSE_FFN_SERVER_SERVICE_MODEL_INFO_CALL_H_

#include "grpcpp/grpcpp.h"
#include "server/service/completion_tag.h"
#include "server/service/ffn_service.h"

namespace sparse_ffn {

// Deletes itself when the call is over. Poller's thread only.
class ModelInfoCall {
 public:
  explicit ModelInfoCall(FfnService* service);

  // Waits for a call. Once.
  void Post(grpc::ServerCompletionQueue* queue);

 private:
  void OnArrival(bool ok);
  void OnFinish(bool ok);

  FfnService* const service_;
  grpc::ServerContext context_;
  v1::GetModelInfoRequest request_;
  grpc::ServerAsyncResponseWriter<v1::GetModelInfoReply> responder_;
  MemberTag<ModelInfoCall, &ModelInfoCall::OnArrival> arrival_tag_;
  MemberTag<ModelInfoCall, &ModelInfoCall::OnFinish> finish_tag_;
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_SERVICE_MODEL_INFO_CALL_H_
