#include "tests/integration/server_fixture.h"

#include <grpc/grpc.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

namespace sparse_ffn {
namespace {

// For the whole program: where the last channel goes with its test, gRPC ends
// there, and may wait 10 s for a poller of its own.
[[maybe_unused]] const bool kGrpcIsHeld = (grpc_init(), true);

}  // namespace

std::shared_ptr<grpc::Channel> NewChannel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // A window that stays small: what a client does not read piles up soon.
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(),
                                   arguments);
}

v1::ForwardRequest MakeRequest(uint64_t request_id, uint32_t tokens,
                               float first) {
  std::vector<float> rows;
  for (uint32_t token = 0; token < tokens; ++token) {
    for (size_t column = 0; column < kHiddenSize; ++column) {
      rows.push_back(first + static_cast<float>(token) +
                     static_cast<float>(column));
    }
  }
  v1::ForwardRequest request;
  request.set_request_id(request_id);
  request.set_tokens(tokens);
  request.set_dtype(v1::DATA_TYPE_FLOAT32);
  request.set_hidden_states(rows.data(), rows.size() * sizeof(float));
  return request;
}

void ExpectReply(const v1::ForwardRequest& request,
                 const v1::ForwardReply& reply) {
  EXPECT_EQ(reply.request_id(), request.request_id());
  EXPECT_EQ(reply.status_code(), 0) << reply.status_message();
  EXPECT_EQ(reply.status_message(), "");
  EXPECT_EQ(reply.tokens(), request.tokens());
  EXPECT_EQ(reply.dtype(), request.dtype());
  ASSERT_EQ(reply.hidden_states().size(), request.hidden_states().size());
  ASSERT_EQ(reply.stats().active_neurons_size(),
            static_cast<int>(request.tokens()));
  EXPECT_EQ(reply.stats().intermediate_size(), kIntermediateSize);
  EXPECT_GE(reply.stats().batch_tokens(), request.tokens());
  for (size_t i = 0; i < request.tokens() * kHiddenSize; ++i) {
    float x = 0;
    float y = 0;
    std::memcpy(&x, request.hidden_states().data() + i * sizeof(x), sizeof(x));
    std::memcpy(&y, reply.hidden_states().data() + i * sizeof(y), sizeof(y));
    EXPECT_EQ(y, 2 * x + 1000 * static_cast<float>(request.layer()));
    if (i % kHiddenSize == 0) {
      EXPECT_EQ(reply.stats().active_neurons(static_cast<int>(i / kHiddenSize)),
                static_cast<uint32_t>(x));
    }
  }
}

double SeriesValue(const std::string& text, const std::string& series) {
  const std::string lines = "\n" + text;
  const size_t at = lines.find("\n" + series + " ");
  if (at == std::string::npos) return NAN;
  return std::strtod(lines.c_str() + at + 2 + series.size(), nullptr);
}

ServerFixture::ServerFixture() {
  FfnServerOptions options;
  std::string listen = GetParam();
  if (listen == "unix:") {
    listen += testing::TempDir() + "ffn" + std::to_string(getpid()) + ".sock";
  }
  options.listen = {listen};
  options.max_request_bytes = 1 << 20;
  absl::StatusOr<std::unique_ptr<FfnServer>> server =
      FfnServer::Listen(options, &metrics_);
  EXPECT_TRUE(server.ok()) << server.status();
  if (!server.ok()) return;
  server_ = *std::move(server);
  address_ = server_->addresses()[0];
  channel_ = NewChannel(address_);
  stub_ = v1::FfnService::NewStub(channel_);
}

ServerFixture::~ServerFixture() {
  control_.Release();
  if (busy_call_.joinable()) busy_call_.join();
  if (batcher_ != nullptr && server_ != nullptr) {
    server_->Drain(std::chrono::seconds(0));
  }
  batcher_.reset();
  server_.reset();
}

void ServerFixture::Serve() {
  BatcherOptions options;
  options.max_batch_tokens = kFixtureBatchTokens;
  options.max_queued_tokens = kMaxQueuedTokens;
  options.now = [this] {
    return std::chrono::steady_clock::now() + clock_ahead_.load();
  };
  options.on_batch = [this](const BatchRecord& batch) {
    metrics_.RecordBatch(batch);
  };
  options.on_failure = [this](const absl::Status&) {
    server_->SetNotServing();
  };
  std::vector<std::unique_ptr<FfnLane>> lanes;
  lanes.push_back(
      std::make_unique<FakeLane>(&control_, kHiddenSize, kFixtureBatchTokens));
  batcher_ = std::make_unique<Batcher>(std::move(options), std::move(lanes));
  MetricsModel metrics_model;
  metrics_model.config.hidden_size = kHiddenSize;
  metrics_model.config.intermediate_size = kIntermediateSize;
  metrics_model.layers = {0, 1, 5};
  metrics_.SetModel(metrics_model);
  ServedModel model;
  model.batcher = batcher_.get();
  model.limits = {kHiddenSize,
                  kIntermediateSize,
                  kFixtureBatchTokens,
                  DataType::kFloat32,
                  {0, 1, 5}};
  model.info.set_model_name("fake");
  for (uint32_t layer : model.limits.layers) model.info.add_layers(layer);
  server_->Serve(std::move(model));
}

void ServerFixture::KeepLaneBusy() {
  control_.Hold();
  const size_t before = control_.batches().size();
  busy_call_ = std::thread([this] {
    v1::ForwardRequest request = MakeRequest(77, 1);
    request.set_layer(1);
    grpc::ClientContext context;
    v1::ForwardReply reply;
    const grpc::Status status = stub_->Forward(&context, request, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    ExpectReply(request, reply);
  });
  control_.WaitForBatches(before + 1);
}

void ServerFixture::FreeLane() {
  control_.Release();
  busy_call_.join();
}

void ServerFixture::ExpectDropsCancelled(
    const std::function<void()>& queue_and_cancel) {
  using std::chrono::milliseconds;
  for (milliseconds time{64}; time < milliseconds(5000); time *= 2) {
    KeepLaneBusy();
    const size_t batches = control_.batches().size();
    queue_and_cancel();
    std::this_thread::sleep_for(time);
    FreeLane();
    if (testing::Test::HasFatalFailure()) return;
    WaitForRequestsInFlight(0);
    if (control_.batches().size() == batches) return;
  }
  ADD_FAILURE() << "the cancelled requests were computed each time";
}

void ServerFixture::WaitForRequestsInFlight(double count) {
  while (Metric("sparse_ffn_requests_in_flight") != count) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

void ServerFixture::WaitForQueuedTokens(size_t count) {
  while (batcher_->queued_tokens() != count) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

void ServerFixture::WaitUntilAnswersStop() {
  constexpr double kMany = 1000;
  constexpr int kSamples = 30;
  double before = 0;
  for (int unchanged = 0; unchanged < kSamples || before < kMany;) {
    double answered = 0;
    for (const char* code : {"OK", "RESOURCE_EXHAUSTED"}) {
      answered += Metric("sparse_ffn_request_duration_seconds_count{code=\"" +
                         std::string(code) + "\",method=\"StreamForward\"}");
    }
    unchanged = answered == before ? unchanged + 1 : 0;
    before = answered;
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
  }
}

grpc::Status ServerFixture::Forward(const v1::ForwardRequest& request) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  reply_.Clear();
  return stub_->Forward(&context, request, &reply_);
}

}  // namespace sparse_ffn
