#include <deque>
#include <optional>

#include "client/grpc_status.h"
#include "client/load/forward_calls.h"
#include "sparse_ffn/v1/ffn.grpc.pb.h"

namespace sparse_ffn {
namespace {

constexpr int64_t kCloseNs = 1'000'000'000;

class StreamCalls final : public ForwardCalls {
 public:
  StreamCalls(const std::shared_ptr<grpc::Channel>& channel, size_t slots)
      : stub_(v1::FfnService::NewStub(channel)),
        requests_(slots),
        in_flight_(slots) {
    completions_.reserve(slots);
  }

  ~StreamCalls() override {
    if (call_ != nullptr) Close();
    queue_.Shutdown();
    void* tag;
    bool ok;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  v1::ForwardRequest* request(size_t slot) override { return &requests_[slot]; }

  void Start(size_t slot) override {
    requests_[slot].set_request_id(slot);
    in_flight_[slot] = true;
    unwritten_.push_back(slot);
    if (call_ == nullptr) {
      Open();
    } else {
      WriteNext();
    }
  }

  const std::vector<Completion>& Poll(int64_t deadline_ns) override {
    completions_.clear();
    // Only now: until here the last reply was the caller's to read.
    if (read_wanted_) {
      read_wanted_ = false;
      pending_[kRead] = true;
      call_->Read(&reply_, TagOf(kRead));
    }
    void* tag;
    bool ok;
    if (queue_.AsyncNext(&tag, &ok, ToGrpcDeadline(deadline_ns)) ==
        grpc::CompletionQueue::GOT_EVENT) {
      OnEvent(static_cast<Operation>(static_cast<bool*>(tag) - pending_), ok);
    }
    return completions_;
  }

  void CancelAll() override {
    if (call_ != nullptr) context_->TryCancel();
  }

 private:
  using Call =
      grpc::ClientAsyncReaderWriter<v1::ForwardRequest, v1::ForwardReply>;
  enum Operation { kOpen, kRead, kWrite, kFinish, kOperations };

  void* TagOf(Operation operation) { return &pending_[operation]; }

  void Open() {
    context_.emplace();
    call_ = stub_->PrepareAsyncStreamForward(&*context_, &queue_);
    pending_[kOpen] = true;
    call_->StartCall(TagOf(kOpen));
  }

  void WriteNext() {
    if (unwritten_.empty() || pending_[kOpen] || pending_[kWrite] || broken_) {
      return;
    }
    pending_[kWrite] = true;
    call_->Write(requests_[unwritten_.front()], TagOf(kWrite));
    unwritten_.pop_front();
  }

  void OnEvent(Operation operation, bool ok) {
    pending_[operation] = false;
    if (operation == kFinish) {
      finished_ = true;
    } else if (!ok) {
      // What was sent before may still be answered: only the end of the
      // replies says that the stream is over.
      broken_ = true;
      if (operation != kWrite) Finish();
    } else if (operation == kOpen) {
      read_wanted_ = true;
      WriteNext();
    } else if (operation == kWrite) {
      WriteNext();
    } else {
      read_wanted_ = true;
      OnReply();
    }
    if (finished_ && !pending_[kWrite]) End();
  }

  void Finish() {
    pending_[kFinish] = true;
    call_->Finish(&final_status_, TagOf(kFinish));
  }

  void OnReply() {
    const uint64_t id = reply_.request_id();
    if (id >= in_flight_.size() || !in_flight_[id]) {
      // Nothing can be matched any more; the slots end with the stream.
      context_->TryCancel();
      return;
    }
    in_flight_[id] = false;
    const auto code = static_cast<grpc::StatusCode>(reply_.status_code());
    if (code == grpc::StatusCode::OK) {
      completions_.push_back({id, absl::OkStatus(), &reply_});
    } else {
      completions_.push_back(
          {id, ToAbslStatus(grpc::Status(code, reply_.status_message())),
           nullptr});
    }
  }

  void End() {
    const absl::Status status =
        final_status_.ok()
            ? absl::UnavailableError("the server ended the stream")
            : ToAbslStatus(final_status_);
    for (size_t slot = 0; slot < in_flight_.size(); ++slot) {
      if (in_flight_[slot]) completions_.push_back({slot, status, nullptr});
      in_flight_[slot] = false;
    }
    unwritten_.clear();
    call_.reset();  // Before its context.
    context_.reset();
    final_status_ = grpc::Status();
    read_wanted_ = broken_ = finished_ = false;
  }

  // Lets the server see a proper end where nothing is in flight.
  void Close() {
    bool idle = !pending_[kOpen] && !pending_[kWrite] && !broken_;
    for (const bool busy : in_flight_) idle = idle && !busy;
    if (idle) {
      pending_[kWrite] = true;
      call_->WritesDone(TagOf(kWrite));
    } else {
      context_->TryCancel();
    }
    const int64_t patience_ends_ns = SteadyNowNs() + kCloseNs;
    while (call_ != nullptr) {
      Poll(SteadyNowNs() + kCloseNs / 10);
      if (call_ != nullptr && SteadyNowNs() > patience_ends_ns) {
        context_->TryCancel();
      }
    }
  }

  const std::unique_ptr<v1::FfnService::Stub> stub_;
  grpc::CompletionQueue queue_;
  std::optional<grpc::ClientContext> context_;
  std::unique_ptr<Call> call_;
  std::vector<v1::ForwardRequest> requests_;
  std::vector<bool> in_flight_;
  std::deque<size_t> unwritten_;  // Slots whose request waits to be written.
  v1::ForwardReply reply_;
  grpc::Status final_status_;
  bool pending_[kOperations] = {};  // Their addresses are the tags.
  bool read_wanted_ = false;
  bool broken_ = false;
  bool finished_ = false;
  std::vector<Completion> completions_;
};

}  // namespace

std::unique_ptr<ForwardCalls> NewStreamCalls(
    const std::shared_ptr<grpc::Channel>& channel, size_t slots) {
  return std::make_unique<StreamCalls>(channel, slots);
}

}  // namespace sparse_ffn
