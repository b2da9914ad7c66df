#include "server/service/unary_call.h"

#include "server/service/status_conversion.h"

namespace sparse_ffn {

UnaryCall::UnaryCall(FfnService* service)
    : service_(service), arrival_tag_(this), finish_tag_(this), end_tag_(this) {
  cancelled = &gave_up_;
}

void UnaryCall::Post(grpc::ServerCompletionQueue* queue) {
  context_.emplace();
  responder_.emplace(&*context_);
  gave_up_ = false;
  context_->AsyncNotifyWhenDone(&end_tag_);
  service_->async_service()->RequestForward(&*context_, &request_, &*responder_,
                                            queue, queue, &arrival_tag_);
}

void UnaryCall::OnArrival(bool ok) {
  if (!ok) {
    service_->CallGone(/*arrived=*/false);
    delete this;
    return;
  }
  started_ = std::chrono::steady_clock::now();
  service_->CallArrived();
  // The two tags to come, and this function or Done, whoever finishes.
  uses_.Set(3);
  deadline = DeadlineOf(context_->raw_deadline());
  const absl::Status status = service_->Submit(request_, this);
  // From here on Done may have been called, and `this` be gone.
  FfnService* const service = service_;
  if (!status.ok()) Finish(status, /*taken=*/false);
  service->PostUnary();
}

void UnaryCall::Done(const absl::StatusOr<FfnTaskResult>& result) {
  if (result.ok()) {
    WriteReply(request_, service_->model()->limits, *result, &reply_);
  }
  Finish(result.status(), /*taken=*/true);
}

void UnaryCall::Finish(const absl::Status& status, bool taken) {
  if (status.ok()) {
    responder_->Finish(reply_, grpc::Status::OK, &finish_tag_);
  } else {
    responder_->FinishWithError(ToGrpcStatus(status), &finish_tag_);
  }
  service_->RecordReply(RpcMethod::kForward, status.code(), taken, started_);
  RemoveUse();
}

void UnaryCall::OnFinish(bool /*ok*/) { RemoveUse(); }

void UnaryCall::OnEnd(bool /*ok*/) {
  if (context_->IsCancelled()) gave_up_ = true;
  RemoveUse();
}

void UnaryCall::RemoveUse() {
  if (!uses_.Remove()) return;
  responder_.reset();
  context_.reset();
  FfnService* const service = service_;
  service->RecycleUnary(this);
  service->CallGone(/*arrived=*/true);
}

}  // namespace sparse_ffn
