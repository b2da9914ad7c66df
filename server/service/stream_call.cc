#include "server/service/stream_call.h"

#include <utility>

#include "server/service/status_conversion.h"

namespace sparse_ffn {
namespace {

constexpr size_t kMostInFlight = 1024;
constexpr size_t kMostInFlightBytes = size_t{64} << 20;
// Memory of items kept for reuse.
constexpr size_t kMostIdleBytes = size_t{16} << 20;

}  // namespace

struct StreamCall::Item final : public FfnTask {
  explicit Item(StreamCall* owner) : stream(owner) {
    cancelled = &owner->gave_up_;
  }

  void Done(const absl::StatusOr<FfnTaskResult>& result) override {
    if (result.ok()) {
      WriteReply(request, stream->service_->model()->limits, *result, &reply);
    } else {
      SetErrorReply(result.status(), request.request_id(), &reply);
    }
    stream->Reply(this, result.status().code(), /*taken=*/true);
  }

  size_t bytes() const {
    return request.hidden_states().capacity() +
           reply.hidden_states().capacity();
  }

  StreamCall* const stream;
  v1::ForwardRequest request;
  v1::ForwardReply reply;
  SteadyTime started;
  size_t counted_bytes = 0;  // Of in_flight_bytes_.
  Item* next_write = nullptr;
};

StreamCall::StreamCall(FfnService* service)
    : service_(service),
      stream_(&context_),
      arrival_tag_(this),
      read_tag_(this),
      write_tag_(this),
      finish_tag_(this),
      end_tag_(this) {}

StreamCall::~StreamCall() = default;

void StreamCall::Post(grpc::ServerCompletionQueue* queue) {
  context_.AsyncNotifyWhenDone(&end_tag_);
  service_->async_service()->RequestStreamForward(&context_, &stream_, queue,
                                                  queue, &arrival_tag_);
}

void StreamCall::OnArrival(bool ok) {
  if (!ok) {
    service_->CallGone(/*arrived=*/false);
    delete this;
    return;
  }
  service_->CallArrived();
  service_->PostStream();
  uses_.Set(2);  // The end to come, and this function.
  deadline_ = DeadlineOf(context_.raw_deadline());
  const bool draining = !service_->AddStream(this);
  {
    MutexLock lock(&mutex_);
    draining_ = draining || draining_ || service_->model() == nullptr;
  }
  Advance();
  RemoveUse();
}

void StreamCall::OnRead(bool ok) {
  Item* item = nullptr;
  {
    MutexLock lock(&mutex_);
    if (!ok) half_closed_ = true;
    if (ok && !finishing_) {
      item = TakeItem();
      ++in_flight_;
      item->counted_bytes = message_.Length();
      in_flight_bytes_ += item->counted_bytes;
    }
  }
  bool parsed = false;
  if (item != nullptr) {
    parsed = grpc::SerializationTraits<v1::ForwardRequest>::Deserialize(
                 &message_, &item->request)
                 .ok();
  }
  {
    MutexLock lock(&mutex_);
    reading_ = false;  // The message is free for the next one.
  }
  if (item != nullptr) Take(item, parsed);
  Advance();
  RemoveUse();
}

void StreamCall::Take(Item* item, bool parsed) {
  uses_.Add();  // The item's, until Reply.
  item->started = std::chrono::steady_clock::now();
  item->deadline = deadline_;
  const absl::Status status =
      parsed ? service_->Submit(item->request, item)
             : service_->SubmitUnreadable(item->counted_bytes);
  if (status.ok()) return;
  SetErrorReply(status, parsed ? item->request.request_id() : 0, &item->reply);
  Reply(item, status.code(), /*taken=*/false);
}

void StreamCall::OnWrite(bool ok) {
  {
    MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok) {
      broken_ = true;
      DropWrites();
    }
  }
  Advance();
  RemoveUse();
}

void StreamCall::OnFinish(bool /*ok*/) {
  service_->RemoveStream(this);
  RemoveUse();
}

void StreamCall::OnEnd(bool /*ok*/) {
  if (context_.IsCancelled()) {
    gave_up_ = true;
    MutexLock lock(&mutex_);
    broken_ = true;
    DropWrites();
  }
  Advance();
  RemoveUse();
}

void StreamCall::Drain() {
  {
    MutexLock lock(&mutex_);
    draining_ = true;
  }
  Advance();
  RemoveUse();
}

void StreamCall::Reply(Item* item, absl::StatusCode code, bool taken) {
  const SteadyTime started = item->started;
  {
    MutexLock lock(&mutex_);
    if (broken_) {
      EndItem(item);
    } else {
      item->next_write = nullptr;
      *last_write_ = item;
      last_write_ = &item->next_write;
    }
  }
  Advance();
  service_->RecordReply(RpcMethod::kStreamForward, code, taken, started);
  RemoveUse();
}

void StreamCall::Advance() {
  while (true) {
    Item* item = nullptr;
    Step step = Step::kNone;
    {
      MutexLock lock(&mutex_);
      step = NextStep(&item);
      if (step == Step::kNone) return;
      uses_.Add();  // The operation's.
    }
    switch (step) {
      case Step::kWrite: {
        Write(item->reply);
        MutexLock lock(&mutex_);
        EndItem(item);
        break;
      }
      case Step::kRead:
        stream_.Read(&message_, &read_tag_);
        break;
      case Step::kFinish:
        stream_.Finish(EndStatus(), &finish_tag_);
        break;
      case Step::kNone:
        break;
    }
  }
}

StreamCall::Step StreamCall::NextStep(Item** item) {
  if (finishing_) return Step::kNone;
  if (!writing_ && first_write_ != nullptr) {
    *item = first_write_;
    first_write_ = (*item)->next_write;
    if (first_write_ == nullptr) last_write_ = &first_write_;
    writing_ = true;
    return Step::kWrite;
  }
  if (MayRead()) {
    reading_ = true;
    return Step::kRead;
  }
  if (!writing_ && in_flight_ == 0 && (half_closed_ || draining_ || broken_)) {
    finishing_ = true;
    return Step::kFinish;
  }
  return Step::kNone;
}

bool StreamCall::MayRead() const {
  return !reading_ && !half_closed_ && !broken_ && !draining_ &&
         in_flight_ < kMostInFlight && in_flight_bytes_ < kMostInFlightBytes;
}

// A client that said it was done and got every answer has not missed anything,
// drain or not.
grpc::Status StreamCall::EndStatus() {
  MutexLock lock(&mutex_);
  if (half_closed_ || !draining_) return grpc::Status::OK;
  const absl::Status status = service_->Availability();
  return ToGrpcStatus(
      status.ok() ? absl::UnavailableError("the server was not ready; retry")
                  : status);
}

void StreamCall::Write(const v1::ForwardReply& reply) {
  grpc::ByteBuffer message;
  bool own = false;
  // Cannot fail: a reply is far smaller than 2 GiB.
  static_cast<void>(grpc::SerializationTraits<v1::ForwardReply>::Serialize(
      reply, &message, &own));
  stream_.Write(message, &write_tag_);
}

void StreamCall::DropWrites() {
  while (first_write_ != nullptr) {
    Item* item = first_write_;
    first_write_ = item->next_write;
    EndItem(item);
  }
  last_write_ = &first_write_;
}

StreamCall::Item* StreamCall::TakeItem() {
  if (idle_items_.empty()) return new Item(this);
  Item* item = idle_items_.back().release();
  idle_items_.pop_back();
  idle_bytes_ -= item->bytes();
  return item;
}

void StreamCall::EndItem(Item* item) {
  --in_flight_;
  in_flight_bytes_ -= item->counted_bytes;
  RecycleItem(item);
}

void StreamCall::RecycleItem(Item* item) {
  std::unique_ptr<Item> owned(item);
  if (idle_bytes_ + item->bytes() > kMostIdleBytes) return;
  idle_bytes_ += item->bytes();
  idle_items_.push_back(std::move(owned));
}

void StreamCall::RemoveUse() {
  if (!uses_.Remove()) return;
  FfnService* const service = service_;
  delete this;
  service->CallGone(/*arrived=*/true);
}

}  // namespace sparse_ffn
