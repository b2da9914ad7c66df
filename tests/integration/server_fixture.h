// A whole server in this process over a lane that the test can hold, and what
// a test needs to talk to it.
#ifndef SPARSE_FFN_TESTS_INTEGRATION_SERVER_FIXTURE_H_
#define SPARSE_FFN_TESTS_INTEGRATION_SERVER_FIXTURE_H_

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "grpcpp/grpcpp.h"
#include "server/batcher.h"
#include "server/metrics.h"
#include "server/service/ffn_server.h"
#include "sparse_ffn/v1/ffn.grpc.pb.h"
#include "tests/fake_lane.h"

namespace sparse_ffn {

inline constexpr size_t kHiddenSize = 4;
inline constexpr size_t kIntermediateSize = 100;
inline constexpr size_t kFixtureBatchTokens = 8;
inline constexpr size_t kMaxQueuedTokens = 16;
// Long enough for the slowest machine; no test waits for it to pass.
inline constexpr std::chrono::seconds kPatience{60};

using Stub = v1::FfnService::Stub;
using ClientStream =
    grpc::ClientReaderWriter<v1::ForwardRequest, v1::ForwardReply>;

// A channel of its own connection, past any proxy.
std::shared_ptr<grpc::Channel> NewChannel(const std::string& address);

// Layer 0 unless changed, float32, element (token, column) = first + token +
// column.
v1::ForwardRequest MakeRequest(uint64_t request_id, uint32_t tokens,
                               float first = 1);

// What FakeLane makes of it, in float32.
void ExpectReply(const v1::ForwardRequest& request,
                 const v1::ForwardReply& reply);

// Value of the series in the text format, NaN where it is not there.
double SeriesValue(const std::string& text, const std::string& series);

// The parameter is the address to listen on; "unix:" stands for a socket in the
// test's temporary folder.
class ServerFixture : public testing::TestWithParam<std::string> {
 protected:
  ServerFixture();
  ~ServerFixture() override;

  // Layers 0, 1 and 5 over a lane that `control_` steers.
  void Serve();
  // Holds the lane with a batch of one token of layer 1, sent by a unary call
  // of its own.
  void KeepLaneBusy();
  // Lets the lane go and expects the reply to that call.
  void FreeLane();
  // Expects that what `queue_and_cancel` put into the queue, and cancelled, is
  // not computed. The server learns of a cancellation in its own time: each
  // round gives it twice as long as the one before.
  void ExpectDropsCancelled(const std::function<void()>& queue_and_cancel);
  // Waits until `count` requests are with the server.
  void WaitForRequestsInFlight(double count);
  void WaitForQueuedTokens(size_t count);
  // Waits until the server answers no more stream items, having answered many:
  // the client does not read.
  void WaitUntilAnswersStop();
  // Gives a unary call its status; the reply is in reply_.
  grpc::Status Forward(const v1::ForwardRequest& request);
  double Metric(const std::string& series) {
    return SeriesValue(metrics_.Text(), series);
  }

  FakeLaneControl control_;
  // By how much the batcher's clock is ahead.
  std::atomic<std::chrono::seconds> clock_ahead_{std::chrono::seconds(0)};
  Metrics metrics_{"test"};
  std::string address_;
  std::unique_ptr<FfnServer> server_;
  std::unique_ptr<Batcher> batcher_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<Stub> stub_;
  v1::ForwardReply reply_;

 private:
  std::thread busy_call_;
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_TESTS_INTEGRATION_SERVER_FIXTURE_H_
