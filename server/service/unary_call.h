// Forward, from acceptance to the end.
#ifndef SPARSE_FFN_SERVER_SERVICE_UNARY_CALL_H_
#define SPARSE_FFN_SERVER_SERVICE_UNARY_CALL_H_

#include <atomic>
#include <optional>

#include "grpcpp/grpcpp.h"
#include "server/batcher.h"
#include "server/service/completion_tag.h"
#include "server/service/ffn_service.h"

namespace sparse_ffn {

// Reused from call to call, for the memory of its messages. Its tags are
// called by the poller, Done by a lane or the poller.
class UnaryCall final : public FfnTask {
 public:
  explicit UnaryCall(FfnService* service);

  // Waits for a call; gives itself back to the service when that is over.
  void Post(grpc::ServerCompletionQueue* queue);

  void Done(const absl::StatusOr<FfnTaskResult>& result) override;

 private:
  void OnArrival(bool ok);
  void OnFinish(bool ok);
  void OnEnd(bool ok);
  void Finish(const absl::Status& status, bool taken);
  void RemoveUse();

  FfnService* const service_;
  v1::ForwardRequest request_;
  v1::ForwardReply reply_;
  std::optional<grpc::ServerContext> context_;
  std::optional<grpc::ServerAsyncResponseWriter<v1::ForwardReply>> responder_;
  MemberTag<UnaryCall, &UnaryCall::OnArrival> arrival_tag_;
  MemberTag<UnaryCall, &UnaryCall::OnFinish> finish_tag_;
  MemberTag<UnaryCall, &UnaryCall::OnEnd> end_tag_;
  SteadyTime started_;
  std::atomic<bool> gave_up_{false};
  UseCount uses_;
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_SERVICE_UNARY_CALL_H_
