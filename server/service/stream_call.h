// StreamForward, from acceptance to the end.
#ifndef SPARSE_FFN_SERVER_SERVICE_STREAM_CALL_H_
#define SPARSE_FFN_SERVER_SERVICE_STREAM_CALL_H_

#include <atomic>
#include <cstddef>
#include <memory>
#include <vector>

#include "grpcpp/grpcpp.h"
#include "server/batcher.h"
#include "server/mutex.h"
#include "server/service/completion_tag.h"
#include "server/service/ffn_service.h"

namespace sparse_ffn {

// One stream, of messages that it parses itself: gRPC would take one that
// cannot be parsed for the end of the stream. Its tags are called by the
// poller, its items' Done by a lane or the poller, Drain by any thread. Reads
// go on while items are in flight, up to a bound; beyond it the flow control of
// the connection holds the client back. Replies are written one at a time by
// whichever thread finds none being written.
class StreamCall {
 public:
  explicit StreamCall(FfnService* service);
  ~StreamCall();
  StreamCall(const StreamCall&) = delete;
  StreamCall& operator=(const StreamCall&) = delete;

  // Waits for a call; deletes itself when that is over. Once.
  void Post(grpc::ServerCompletionQueue* queue);

  // Keeps the stream until Drain has returned.
  void AddUse() { uses_.Add(); }

  // Reads nothing more; ends with UNAVAILABLE once every item in flight is
  // answered. Gives back the use that AddUse took.
  void Drain();

 private:
  struct Item;

  void OnArrival(bool ok);
  void OnRead(bool ok);
  void OnWrite(bool ok);
  void OnFinish(bool ok);
  void OnEnd(bool ok);

  // Hands a message just read to the service, or answers it. The poller.
  void Take(Item* item, bool parsed);
  void Write(const v1::ForwardReply& reply);
  // Starts whatever can be started now: a write, a read, the end.
  void Advance();
  enum class Step { kNone, kWrite, kRead, kFinish };
  Step NextStep(Item** item) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool MayRead() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  grpc::Status EndStatus();

  void Reply(Item* item, absl::StatusCode code, bool taken);
  void DropWrites() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Of an item that was in flight.
  void EndItem(Item* item) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Item* TakeItem() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RecycleItem(Item* item) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RemoveUse();

  FfnService* const service_;
  grpc::ServerContext context_;
  grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer> stream_;
  MemberTag<StreamCall, &StreamCall::OnArrival> arrival_tag_;
  MemberTag<StreamCall, &StreamCall::OnRead> read_tag_;
  MemberTag<StreamCall, &StreamCall::OnWrite> write_tag_;
  MemberTag<StreamCall, &StreamCall::OnFinish> finish_tag_;
  MemberTag<StreamCall, &StreamCall::OnEnd> end_tag_;
  SteadyTime deadline_ = SteadyTime::max();  // Constant after arrival.
  std::atomic<bool> gave_up_{false};
  UseCount uses_;
  grpc::ByteBuffer message_;  // Being read; of the poller in OnRead.

  Mutex mutex_;
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool half_closed_ ABSL_GUARDED_BY(mutex_) = false;  // No read will succeed.
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;       // No write will succeed.
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool finishing_ ABSL_GUARDED_BY(mutex_) = false;
  size_t in_flight_ ABSL_GUARDED_BY(mutex_) =
      0;  // Read, reply not yet written.
  size_t in_flight_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  Item* first_write_ ABSL_GUARDED_BY(mutex_) = nullptr;
  Item** last_write_ ABSL_GUARDED_BY(mutex_) = &first_write_;
  std::vector<std::unique_ptr<Item>> idle_items_ ABSL_GUARDED_BY(mutex_);
  size_t idle_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_SERVICE_STREAM_CALL_H_
