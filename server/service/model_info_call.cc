#include "server/service/model_info_call.h"

#include "server/service/status_conversion.h"

namespace sparse_ffn {

ModelInfoCall::ModelInfoCall(FfnService* service)
    : service_(service),
      responder_(&context_),
      arrival_tag_(this),
      finish_tag_(this) {}

void ModelInfoCall::Post(grpc::ServerCompletionQueue* queue) {
  service_->async_service()->RequestGetModelInfo(
      &context_, &request_, &responder_, queue, queue, &arrival_tag_);
}

void ModelInfoCall::OnArrival(bool ok) {
  if (!ok) {
    service_->CallGone(/*arrived=*/false);
    delete this;
    return;
  }
  const SteadyTime started = std::chrono::steady_clock::now();
  service_->CallArrived();
  service_->PostModelInfo();
  const absl::Status status = service_->Availability();
  if (status.ok()) {
    responder_.Finish(service_->model()->info, grpc::Status::OK, &finish_tag_);
  } else {
    responder_.FinishWithError(ToGrpcStatus(status), &finish_tag_);
  }
  service_->metrics()->RecordRequest(
      RpcMethod::kGetModelInfo, status.code(),
      std::chrono::steady_clock::now() - started);
}

void ModelInfoCall::OnFinish(bool /*ok*/) {
  service_->CallGone(/*arrived=*/true);
  delete this;
}

}  // namespace sparse_ffn
