// Forward requests in flight of one client thread, over a completion queue that
// the same thread polls: no hand-over between threads. Two kinds: a unary call
// for each request, or one long-lived stream.
#ifndef SPARSE_FFN_CLIENT_LOAD_FORWARD_CALLS_H_
#define SPARSE_FFN_CLIENT_LOAD_FORWARD_CALLS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "sparse_ffn/v1/ffn.pb.h"

namespace sparse_ffn {

// The end of one request.
struct Completion {
  size_t slot = 0;
  absl::Status status;
  // Set where status is OK; valid until the next Poll or Start.
  const v1::ForwardReply* reply = nullptr;
};

// A fixed number of slots, each with one request message that is reused. One
// thread, and the channel outlives it. Destruction cancels what is in flight
// and waits for it.
class ForwardCalls {
 public:
  virtual ~ForwardCalls() = default;

  // The message of a slot that is not in flight; request_id is overwritten.
  virtual v1::ForwardRequest* request(size_t slot) = 0;

  // Sends the request of a slot that is not in flight. Never blocks. Each
  // Start is answered by exactly one Completion.
  virtual void Start(size_t slot) = 0;

  // Waits until something happens or the steady clock shows `deadline_ns` (in
  // whole milliseconds; a time that is past polls once without waiting).
  // Returns what completed, often nothing; valid until the next Poll.
  virtual const std::vector<Completion>& Poll(int64_t deadline_ns) = 0;

  // Cancels everything in flight; the completions still come from Poll.
  virtual void CancelAll() = 0;
};

// `timeout` is the deadline of each call.
std::unique_ptr<ForwardCalls> NewUnaryCalls(
    const std::shared_ptr<grpc::Channel>& channel, size_t slots,
    absl::Duration timeout);

// The stream opens at the first Start. When it breaks, everything in flight
// completes with its status, and the next Start opens another.
std::unique_ptr<ForwardCalls> NewStreamCalls(
    const std::shared_ptr<grpc::Channel>& channel, size_t slots);

// Now, on the clock that all times in nanoseconds refer to.
int64_t SteadyNowNs();

// `steady_ns` as gRPC takes deadlines.
gpr_timespec ToGrpcDeadline(int64_t steady_ns);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_LOAD_FORWARD_CALLS_H_
