// What the calls of one server share: the asynchronous service they are
// accepted from, the model they ask for, and the drain that ends them.
#ifndef SPARSE_FFN_SERVER_SERVICE_FFN_SERVICE_H_
#define SPARSE_FFN_SERVER_SERVICE_FFN_SERVICE_H_

#include <grpc/support/time.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <unordered_set>
#include <vector>

#include "absl/status/status.h"
#include "grpcpp/grpcpp.h"
#include "server/batcher.h"
#include "server/metrics.h"
#include "server/mutex.h"
#include "server/service/forward_messages.h"
#include "sparse_ffn/v1/ffn.grpc.pb.h"
#include "sparse_ffn/v1/ffn.pb.h"

namespace sparse_ffn {

class StreamCall;
class UnaryCall;

// What is served once the model is loaded. The batcher must stay until the
// service has drained.
struct ServedModel {
  Batcher* batcher = nullptr;
  RequestLimits limits;
  v1::GetModelInfoReply info;
};

// Streams carry messages as they came; see stream_call.h.
using AsyncFfnService = v1::FfnService::WithAsyncMethod_GetModelInfo<
    v1::FfnService::WithAsyncMethod_Forward<
        v1::FfnService::WithRawMethod_StreamForward<v1::FfnService::Service>>>;

// All functions but those marked "poller" may be called by any thread.
class FfnService {
 public:
  // `metrics` must outlive the service.
  explicit FfnService(Metrics* metrics);
  ~FfnService();
  FfnService(const FfnService&) = delete;
  FfnService& operator=(const FfnService&) = delete;

  AsyncFfnService* async_service() { return &async_service_; }
  Metrics* metrics() const { return metrics_; }

  // Posts the first acceptors. Once, when the server runs and before the poller
  // starts.
  void Start(grpc::ServerCompletionQueue* queue);

  // From now on requests are computed; before, they get UNAVAILABLE. Once.
  void Serve(ServedModel model);

  // Null until Serve.
  const ServedModel* model() const {
    return model_.load(std::memory_order_acquire);
  }

  // New calls and new stream items get UNAVAILABLE from now on, and each stream
  // ends with UNAVAILABLE once what it sent before is answered.
  void Drain();

  // OK while requests are taken, else UNAVAILABLE with the reason.
  absl::Status Availability() const;

  // Checks `request` and hands it to the batcher. Counts it as in flight, and
  // as rejected where the status returned is an error; then the task was not
  // taken.
  absl::Status Submit(const v1::ForwardRequest& request, FfnTask* task);

  // In place of Submit for a message of so many bytes that is no request:
  // counts it as Submit does and returns INVALID_ARGUMENT.
  absl::Status SubmitUnreadable(size_t bytes);

  // Once for each Submit, when its reply was handed over. `taken` says whether
  // Submit returned OK, so that what went wrong later is counted here.
  void RecordReply(RpcMethod method, absl::StatusCode code, bool taken,
                   SteadyTime started);

  size_t requests_in_flight() const {
    return requests_in_flight_.load(std::memory_order_acquire);
  }

  // False if the calls that clients have made were not all over by `deadline`.
  bool WaitForOpenCalls(SteadyTime deadline);
  // False if some acceptor was still posted by `deadline` too. After the
  // server's shutdown.
  bool WaitForAllCalls(SteadyTime deadline);

  // For the calls themselves:

  // Each object is created (or taken from the idle ones) as an acceptor,
  // becomes open when a client's call arrives and is gone at its end. Poller.
  void PostUnary();
  void PostStream();
  void PostModelInfo();
  // Takes the call back for reuse.
  void RecycleUnary(UnaryCall* call);
  void CallArrived();
  // `arrived` as in: CallArrived was called for it. The object may go after.
  void CallGone(bool arrived);

  // From its arrival until its end a stream is told to drain. False when that
  // is under way already; then it was not added.
  bool AddStream(StreamCall* stream);
  void RemoveStream(StreamCall* stream);

 private:
  void RecordRejected(absl::StatusCode code, bool taken);

  Metrics* const metrics_;
  AsyncFfnService async_service_;
  grpc::ServerCompletionQueue* queue_ = nullptr;  // Constant after Start.
  std::unique_ptr<ServedModel> owned_model_;      // Constant after Serve.
  std::atomic<const ServedModel*> model_{nullptr};
  std::atomic<bool> draining_{false};
  std::atomic<size_t> requests_in_flight_{0};

  Mutex mutex_;
  CondVar calls_changed_;
  size_t objects_ ABSL_GUARDED_BY(mutex_) = 0;  // Acceptors and open calls.
  size_t open_ ABSL_GUARDED_BY(mutex_) = 0;
  std::unordered_set<StreamCall*> streams_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<UnaryCall>> idle_unary_ ABSL_GUARDED_BY(mutex_);
};

// A call's raw_deadline() on the steady clock; max() where that is never or in
// more than a hundred years. ServerContext::deadline() wraps around there.
SteadyTime DeadlineOf(gpr_timespec deadline);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_SERVICE_FFN_SERVICE_H_
