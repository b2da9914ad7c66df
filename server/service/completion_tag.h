// What a completion queue hands back, and the count of who still needs a call.
#ifndef SPARSE_FFN_SERVER_SERVICE_COMPLETION_TAG_H_
#define SPARSE_FFN_SERVER_SERVICE_COMPLETION_TAG_H_

#include <atomic>

namespace sparse_ffn {

// The poller calls Proceed when the operation that was started with this tag
// is over; `ok` as grpc::CompletionQueue::Next defines it.
class CompletionTag {
 public:
  virtual ~CompletionTag() = default;
  virtual void Proceed(bool ok) = 0;
};

// A tag that calls one member function of its owner.
template <typename Owner, void (Owner::*kMethod)(bool)>
class MemberTag final : public CompletionTag {
 public:
  explicit MemberTag(Owner* owner) : owner_(owner) {}
  void Proceed(bool ok) override { (owner_->*kMethod)(ok); }

 private:
  Owner* const owner_;
};

// One for each operation, and each task, that will still use the call. Any
// thread.
class UseCount {
 public:
  void Set(int count) { count_.store(count, std::memory_order_relaxed); }
  void Add() { count_.fetch_add(1, std::memory_order_relaxed); }
  // True for the last one, who then owns the call alone.
  bool Remove() { return count_.fetch_sub(1, std::memory_order_acq_rel) == 1; }

 private:
  std::atomic<int> count_{0};
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_SERVICE_COMPLETION_TAG_H_
