// An FfnService that adds the layer's number to every float32, with failures on
// request: what the client library and the load generator are tested against.
#ifndef SPARSE_FFN_TESTS_INTEGRATION_FAKE_FFN_SERVICE_H_
#define SPARSE_FFN_TESTS_INTEGRATION_FAKE_FFN_SERVICE_H_

#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grpcpp/grpcpp.h"
#include "sparse_ffn/v1/ffn.grpc.pb.h"

namespace sparse_ffn {

class FakeFfnService final : public v1::FfnService::Service {
 public:
  using Stream = grpc::ServerReaderWriter<v1::ForwardReply, v1::ForwardRequest>;

  static constexpr uint32_t kLayers = 3;
  static constexpr uint32_t kHiddenSize = 8;
  static constexpr uint32_t kIntermediateSize = 100;
  static constexpr uint32_t kFixtureBatchTokens = 16;
  static constexpr uint32_t kActiveNeurons = 25;

  // Streams answer every second request before the one that came before it.
  std::atomic<bool> swap_pairs{false};
  // GetModelInfo says so, this often; then it does not answer.
  std::atomic<bool> loading{false};
  std::atomic<int> loading_answers{std::numeric_limits<int>::max()};
  // Replies carry one byte too few.
  std::atomic<bool> truncate_replies{false};
  // Calls end with this status unless it is OK; for streams, instead of the
  // first reply.
  std::atomic<int> fail_with{0};
  // Every call waits until the time this many milliseconds after the server's
  // start has come, if that is positive, from `stall_from_ms` on.
  std::atomic<int> stall_from_ms{0};
  std::atomic<int> stall_until_ms{0};

  // What goes wrong with every reply from here on.
  void SpoilReplies(std::function<void(v1::ForwardReply*)> spoil) {
    const std::lock_guard<std::mutex> lock(mutex_);
    spoil_ = std::move(spoil);
  }

  // Layers in the order in which requests came.
  std::vector<uint32_t> seen_layers() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return seen_layers_;
  }

  // Calls and streams that ended with `fail_with`.
  int told_failures() const { return told_failures_; }

  void StartClock() { start_ = std::chrono::steady_clock::now(); }

  grpc::Status GetModelInfo(grpc::ServerContext* context,
                            const v1::GetModelInfoRequest* /*request*/,
                            v1::GetModelInfoReply* reply) override {
    if (loading) {
      const bool answers = loading_answers-- > 0;
      while (!answers && !context->IsCancelled()) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "still loading");
    }
    reply->set_model_name("fake");
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      reply->add_layers(layer);
    }
    reply->set_hidden_size(kHiddenSize);
    reply->set_intermediate_size(kIntermediateSize);
    reply->set_weights_dtype(v1::DATA_TYPE_FLOAT32);
    reply->set_activation("relu");
    reply->set_backend("fake");
    reply->set_max_batch_tokens(kFixtureBatchTokens);
    return grpc::Status::OK;
  }

  grpc::Status Forward(grpc::ServerContext* context,
                       const v1::ForwardRequest* request,
                       v1::ForwardReply* reply) override {
    Stall(context);
    grpc::Status failure = ToldFailure();
    return failure.ok() ? Answer(*request, reply) : failure;
  }

  grpc::Status StreamForward(grpc::ServerContext* context,
                             Stream* stream) override {
    v1::ForwardRequest request;
    std::vector<v1::ForwardReply> held;
    while (stream->Read(&request)) {
      Stall(context);
      grpc::Status failure = ToldFailure();
      if (!failure.ok()) return failure;
      held.insert(held.begin(), ItemReply(request));
      if (swap_pairs && held.size() < 2) continue;
      for (const v1::ForwardReply& reply : held) stream->Write(reply);
      held.clear();
    }
    for (const v1::ForwardReply& reply : held) stream->Write(reply);
    return grpc::Status::OK;
  }

 private:
  void Stall(grpc::ServerContext* context) const {
    const auto now = std::chrono::steady_clock::now();
    if (now < start_ + std::chrono::milliseconds(stall_from_ms)) return;
    const auto end = start_ + std::chrono::milliseconds(stall_until_ms);
    while (std::chrono::steady_clock::now() < end && !context->IsCancelled()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  grpc::Status ToldFailure() {
    const int code = fail_with;
    if (code == 0) return grpc::Status::OK;
    ++told_failures_;
    return grpc::Status(static_cast<grpc::StatusCode>(code), "told to fail");
  }

  v1::ForwardReply ItemReply(const v1::ForwardRequest& request) {
    v1::ForwardReply reply;
    const grpc::Status status = Answer(request, &reply);
    if (!status.ok()) {
      reply.set_request_id(request.request_id());
      reply.set_status_code(status.error_code());
      reply.set_status_message(status.error_message());
    }
    return reply;
  }

  grpc::Status Answer(const v1::ForwardRequest& request,
                      v1::ForwardReply* reply) {
    const std::string& in = request.hidden_states();
    if (request.layer() >= kLayers) {
      return grpc::Status(grpc::StatusCode::NOT_FOUND,
                          absl::StrCat("no layer ", request.layer()));
    }
    if (request.tokens() == 0 || request.tokens() > kFixtureBatchTokens ||
        in.size() != sizeof(float) * kHiddenSize * request.tokens()) {
      return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "wrong size");
    }
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      seen_layers_.push_back(request.layer());
    }
    std::string* out = reply->mutable_hidden_states();
    out->resize(in.size());
    for (size_t i = 0; i < in.size(); i += sizeof(float)) {
      float value;
      std::memcpy(&value, in.data() + i, sizeof(float));
      value += static_cast<float>(request.layer());
      std::memcpy(out->data() + i, &value, sizeof(float));
    }
    if (truncate_replies) out->pop_back();
    reply->set_request_id(request.request_id());
    reply->set_tokens(request.tokens());
    reply->set_dtype(request.dtype());
    FillStats(request, reply->mutable_stats());
    const std::lock_guard<std::mutex> lock(mutex_);
    if (spoil_) spoil_(reply);
    return grpc::Status::OK;
  }

  static void FillStats(const v1::ForwardRequest& request,
                        v1::ForwardStats* stats) {
    for (uint32_t i = 0; i < request.tokens(); ++i) {
      stats->add_active_neurons(kActiveNeurons);
    }
    stats->set_union_active_neurons(2 * kActiveNeurons);
    stats->set_intermediate_size(kIntermediateSize);
    stats->set_batch_tokens(request.tokens() + 1);
    stats->set_path(request.execution() == v1::EXECUTION_DENSE ? "dense"
                                                               : "sparse");
    stats->set_queue_ns(1000);
    stats->set_compute_ns(20000);
  }

  std::chrono::steady_clock::time_point start_ =
      std::chrono::steady_clock::now();
  std::atomic<int> told_failures_{0};
  std::mutex mutex_;
  std::vector<uint32_t> seen_layers_;
  std::function<void(v1::ForwardReply*)> spoil_;
};

// The service on a free port of the loopback, until destruction.
class FakeFfnServer {
 public:
  FakeFfnServer() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    target_ = absl::StrCat("127.0.0.1:", port);
  }
  ~FakeFfnServer() { Stop(); }

  // Ends all calls at once.
  void Stop() { server_->Shutdown(std::chrono::system_clock::now()); }

  FakeFfnService* service() { return &service_; }
  const std::string& target() const { return target_; }

 private:
  FakeFfnService service_;
  std::unique_ptr<grpc::Server> server_;
  std::string target_;
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_TESTS_INTEGRATION_FAKE_FFN_SERVICE_H_
