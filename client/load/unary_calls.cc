#include <chrono>
#include <optional>

#include "client/grpc_status.h"
#include "client/load/forward_calls.h"
#include "sparse_ffn/v1/ffn.grpc.pb.h"

namespace sparse_ffn {
namespace {

class UnaryCalls final : public ForwardCalls {
 public:
  UnaryCalls(const std::shared_ptr<grpc::Channel>& channel, size_t slots,
             absl::Duration timeout)
      : stub_(v1::FfnService::NewStub(channel)),
        timeout_(timeout),
        slots_(slots) {
    completions_.reserve(1);
  }

  ~UnaryCalls() override {
    CancelAll();
    queue_.Shutdown();
    void* tag;
    bool ok;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  v1::ForwardRequest* request(size_t slot) override {
    return &slots_[slot].request;
  }

  void Start(size_t index) override {
    Slot& slot = slots_[index];
    slot.request.set_request_id(index);
    slot.reader.reset();  // Lives in the memory of the context's call.
    slot.context.emplace();
    if (timeout_ != absl::InfiniteDuration()) {
      slot.context->set_deadline(std::chrono::system_clock::now() +
                                 absl::ToChronoNanoseconds(timeout_));
    }
    slot.reader = stub_->AsyncForward(&*slot.context, slot.request, &queue_);
    slot.in_flight = true;
    slot.reader->Finish(&slot.reply, &slot.status, &slot);
  }

  const std::vector<Completion>& Poll(int64_t deadline_ns) override {
    completions_.clear();
    void* tag;
    bool ok;
    if (queue_.AsyncNext(&tag, &ok, ToGrpcDeadline(deadline_ns)) !=
        grpc::CompletionQueue::GOT_EVENT) {
      return completions_;
    }
    Slot& slot = *static_cast<Slot*>(tag);
    slot.in_flight = false;
    const bool well = slot.status.ok();
    completions_.push_back({static_cast<size_t>(&slot - slots_.data()),
                            ToAbslStatus(slot.status),
                            well ? &slot.reply : nullptr});
    return completions_;
  }

  void CancelAll() override {
    for (Slot& slot : slots_) {
      if (slot.in_flight) slot.context->TryCancel();
    }
  }

 private:
  struct Slot {
    v1::ForwardRequest request;
    v1::ForwardReply reply;
    std::optional<grpc::ClientContext> context;
    std::unique_ptr<grpc::ClientAsyncResponseReader<v1::ForwardReply>> reader;
    grpc::Status status;
    bool in_flight = false;
  };

  const std::unique_ptr<v1::FfnService::Stub> stub_;
  const absl::Duration timeout_;
  grpc::CompletionQueue queue_;
  std::vector<Slot> slots_;
  std::vector<Completion> completions_;
};

}  // namespace

std::unique_ptr<ForwardCalls> NewUnaryCalls(
    const std::shared_ptr<grpc::Channel>& channel, size_t slots,
    absl::Duration timeout) {
  return std::make_unique<UnaryCalls>(channel, slots, timeout);
}

}  // namespace sparse_ffn
