#include "server/service/ffn_service.h"

#include <grpc/support/time.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/service/model_info_call.h"
#include "server/service/stream_call.h"
#include "server/service/unary_call.h"

namespace sparse_ffn {
namespace {

// Acceptors posted at a time: calls that come together need not wait for the
// poller to post the next one.
constexpr int kPostedUnary = 16;
constexpr int kPostedStream = 4;
// Finished calls kept for reuse; each holds the memory of one request.
constexpr size_t kMostIdleUnary = 64;

}  // namespace

FfnService::FfnService(Metrics* metrics) : metrics_(metrics) {
  metrics_->SetRequestsInFlightSource([this] { return requests_in_flight(); });
}

FfnService::~FfnService() {
  metrics_->SetRequestsInFlightSource(nullptr);
  metrics_->SetQueuedTokensSource(nullptr);
}

void FfnService::Start(grpc::ServerCompletionQueue* queue) {
  queue_ = queue;
  for (int i = 0; i < kPostedUnary; ++i) PostUnary();
  for (int i = 0; i < kPostedStream; ++i) PostStream();
  PostModelInfo();
}

void FfnService::Serve(ServedModel model) {
  owned_model_ = std::make_unique<ServedModel>(std::move(model));
  Batcher* batcher = owned_model_->batcher;
  metrics_->SetQueuedTokensSource(
      [batcher] { return batcher->queued_tokens(); });
  model_.store(owned_model_.get(), std::memory_order_release);
}

void FfnService::Drain() {
  std::vector<StreamCall*> streams;
  {
    MutexLock lock(&mutex_);
    draining_ = true;
    for (StreamCall* stream : streams_) {
      stream->AddUse();
      streams.push_back(stream);
    }
  }
  const ServedModel* served = model();
  if (served != nullptr) served->batcher->Drain();
  for (StreamCall* stream : streams) stream->Drain();
}

absl::Status FfnService::Availability() const {
  if (draining_) {
    return absl::UnavailableError(
        "the server is draining; retry on another replica");
  }
  if (model() == nullptr) {
    return absl::UnavailableError("the server is still loading its model");
  }
  return absl::OkStatus();
}

absl::Status FfnService::Submit(const v1::ForwardRequest& request,
                                FfnTask* task) {
  requests_in_flight_.fetch_add(1, std::memory_order_relaxed);
  absl::Status status = Availability();
  if (status.ok()) {
    const ServedModel* served = model();
    status = ReadRequest(request, served->limits, task);
    if (status.ok()) status = served->batcher->Submit(task);
  }
  if (!status.ok()) RecordRejected(status.code(), /*taken=*/false);
  return status;
}

absl::Status FfnService::SubmitUnreadable(size_t bytes) {
  requests_in_flight_.fetch_add(1, std::memory_order_relaxed);
  absl::Status status = absl::InvalidArgumentError(
      absl::StrCat("the message cannot be parsed; expected a "
                   "sparse_ffn.v1.ForwardRequest, got ",
                   bytes, " bytes that are none"));
  RecordRejected(status.code(), /*taken=*/false);
  return status;
}

void FfnService::RecordReply(RpcMethod method, absl::StatusCode code,
                             bool taken, SteadyTime started) {
  metrics_->RecordRequest(method, code,
                          std::chrono::steady_clock::now() - started);
  if (taken && code != absl::StatusCode::kOk) RecordRejected(code, taken);
  // Last: where no request is in flight, all have been counted.
  requests_in_flight_.fetch_sub(1, std::memory_order_release);
}

void FfnService::RecordRejected(absl::StatusCode code, bool taken) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
      return metrics_->RecordRejected(RejectReason::kInvalid);
    case absl::StatusCode::kDeadlineExceeded:
      return metrics_->RecordRejected(RejectReason::kDeadline);
    case absl::StatusCode::kCancelled:
      return metrics_->RecordRejected(RejectReason::kCancelled);
    case absl::StatusCode::kResourceExhausted:
      return metrics_->RecordRejected(taken ? RejectReason::kOutOfMemory
                                            : RejectReason::kQueueFull);
    case absl::StatusCode::kUnavailable:
      if (draining_) metrics_->RecordRejected(RejectReason::kDraining);
      return;
    default:
      return;
  }
}

bool FfnService::WaitForOpenCalls(SteadyTime deadline) {
  MutexLock lock(&mutex_);
  while (open_ > 0) {
    if (!calls_changed_.WaitUntil(&mutex_, deadline)) return open_ == 0;
  }
  return true;
}

bool FfnService::WaitForAllCalls(SteadyTime deadline) {
  MutexLock lock(&mutex_);
  while (objects_ > 0) {
    if (!calls_changed_.WaitUntil(&mutex_, deadline)) return objects_ == 0;
  }
  return true;
}

void FfnService::PostUnary() {
  std::unique_ptr<UnaryCall> call;
  {
    MutexLock lock(&mutex_);
    ++objects_;
    if (!idle_unary_.empty()) {
      call = std::move(idle_unary_.back());
      idle_unary_.pop_back();
    }
  }
  if (call == nullptr) call = std::make_unique<UnaryCall>(this);
  call.release()->Post(queue_);
}

void FfnService::PostStream() {
  {
    MutexLock lock(&mutex_);
    ++objects_;
  }
  auto* call = new StreamCall(this);
  call->Post(queue_);
}

void FfnService::PostModelInfo() {
  {
    MutexLock lock(&mutex_);
    ++objects_;
  }
  auto* call = new ModelInfoCall(this);
  call->Post(queue_);
}

void FfnService::RecycleUnary(UnaryCall* call) {
  std::unique_ptr<UnaryCall> owned(call);
  MutexLock lock(&mutex_);
  if (idle_unary_.size() < kMostIdleUnary) {
    idle_unary_.push_back(std::move(owned));
  }
}

void FfnService::CallArrived() {
  MutexLock lock(&mutex_);
  ++open_;
}

void FfnService::CallGone(bool arrived) {
  MutexLock lock(&mutex_);
  --objects_;
  if (arrived) --open_;
  calls_changed_.NotifyAll();
}

bool FfnService::AddStream(StreamCall* stream) {
  MutexLock lock(&mutex_);
  if (draining_) return false;
  streams_.insert(stream);
  return true;
}

void FfnService::RemoveStream(StreamCall* stream) {
  MutexLock lock(&mutex_);
  streams_.erase(stream);
}

SteadyTime DeadlineOf(gpr_timespec deadline) {
  constexpr int64_t kNever = int64_t{100} * 365 * 24 * 3600;
  const gpr_timespec left =
      gpr_time_sub(deadline, gpr_now(deadline.clock_type));
  if (left.tv_sec > kNever) return SteadyTime::max();
  const int64_t seconds = std::max(left.tv_sec, -kNever);
  return std::chrono::steady_clock::now() + std::chrono::seconds(seconds) +
         std::chrono::nanoseconds(left.tv_nsec);
}

}  // namespace sparse_ffn
