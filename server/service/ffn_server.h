// The gRPC server as a whole: addresses, health, reflection, FfnService and the
// thread that polls for its calls.
#ifndef SPARSE_FFN_SERVER_SERVICE_FFN_SERVER_H_
#define SPARSE_FFN_SERVER_SERVICE_FFN_SERVER_H_

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/grpcpp.h"
#include "server/batcher.h"
#include "server/metrics.h"
#include "server/service/ffn_service.h"

namespace sparse_ffn {

struct FfnServerOptions {
  std::vector<std::string> listen;  // host:port and unix:path.
  // Largest request accepted; a larger one gets RESOURCE_EXHAUSTED from gRPC,
  // which on a stream ends the stream.
  size_t max_request_bytes = 0;
};

// Any thread may call its functions, each at most once.
class FfnServer {
 public:
  // Binds every address; health is NOT_SERVING and calls get UNAVAILABLE until
  // Serve. UNAVAILABLE, saying why, when an address cannot be had. `metrics`
  // must outlive the server.
  static absl::StatusOr<std::unique_ptr<FfnServer>> Listen(
      const FfnServerOptions& options, Metrics* metrics);

  // Cancels the calls that are left and waits for them; no task may be with the
  // batcher any more.
  ~FfnServer();
  FfnServer(const FfnServer&) = delete;
  FfnServer& operator=(const FfnServer&) = delete;

  // As given, with the port that was chosen in place of 0.
  const std::vector<std::string>& addresses() const { return addresses_; }

  // From now on requests are computed and health is SERVING. After it, Drain
  // must be called while model.batcher is there, and the batcher must be gone
  // before the server is.
  void Serve(ServedModel model);

  // Health becomes NOT_SERVING for good.
  void SetNotServing();

  // Refuses new work, waits until what was accepted is computed and every call
  // is over, and closes the addresses. False if that was not so within
  // `timeout`; then the calls that were left got UNAVAILABLE or CANCELLED, and
  // some may still be with the batcher.
  bool Drain(std::chrono::steady_clock::duration timeout);
  // After Drain: accepted requests that had no answer when its time was over.
  size_t unanswered_requests() const { return unanswered_requests_; }

 private:
  explicit FfnServer(Metrics* metrics) : service_(metrics) {}

  absl::Status Bind(const FfnServerOptions& options);
  void Poll();
  void SetServing(bool serving);
  void StopAccepting();

  FfnService service_;
  std::vector<std::string> addresses_;
  std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  std::unique_ptr<grpc::Server> server_;
  std::atomic<bool> stopped_{false};
  size_t unanswered_requests_ = 0;
  std::thread poller_;
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_SERVICE_FFN_SERVER_H_
