// How a server comes up and goes down: what callers and health checks are told
// meanwhile.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "tests/integration/raw_call.h"
#include "tests/integration/server_fixture.h"

namespace sparse_ffn {
namespace {

using testing::HasSubstr;

// HealthCheckRequest{service}, and HealthCheckResponse as it is on the wire.
std::string HealthRequest(const std::string& service) {
  return std::string("\x0a") + static_cast<char>(service.size()) + service;
}
constexpr char kServing[] = "\x08\x01";
constexpr char kNotServing[] = "\x08\x02";
constexpr char kService[] = "sparse_ffn.v1.FfnService";

class DrainTest : public ServerFixture {
 protected:
  void SetUp() override { ASSERT_NE(server_, nullptr); }

  std::string Health(const std::string& service) {
    RawCall call(channel_, "/grpc.health.v1.Health/Check",
                 HealthRequest(service));
    return call.Next();
  }

  void StartDrain() {
    drainer_ = std::thread([this] { drained_ = server_->Drain(kPatience); });
    grpc::Status status;
    while (status.error_code() != grpc::StatusCode::UNAVAILABLE) {
      grpc::ClientContext context;
      v1::GetModelInfoReply info;
      status = stub_->GetModelInfo(&context, {}, &info);
    }
  }
  bool FinishDrain() {
    drainer_.join();
    return drained_;
  }

  std::thread drainer_;
  bool drained_ = false;
};

INSTANTIATE_TEST_SUITE_P(Addresses, DrainTest,
                         testing::Values("127.0.0.1:0", "unix:"),
                         [](const auto& address) {
                           return std::string(address.index == 0 ? "Tcp"
                                                                 : "Unix");
                         });

TEST_P(DrainTest, IsUnavailableWhileLoading) {
  EXPECT_EQ(Health(""), kNotServing);
  EXPECT_EQ(Health(kService), kNotServing);
  const grpc::Status unary = Forward(MakeRequest(1, 1));
  EXPECT_EQ(unary.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(unary.error_message(), HasSubstr("loading"));
  grpc::ClientContext info_context;
  v1::GetModelInfoReply info;
  EXPECT_EQ(stub_->GetModelInfo(&info_context, {}, &info).error_code(),
            grpc::StatusCode::UNAVAILABLE);
  grpc::ClientContext context;
  auto stream = stub_->StreamForward(&context);
  v1::ForwardReply reply;
  EXPECT_FALSE(stream->Read(&reply));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  Serve();
  EXPECT_EQ(Health(""), kServing);
  EXPECT_EQ(Health(kService), kServing);
  EXPECT_TRUE(Forward(MakeRequest(1, 1)).ok());
}

TEST_P(DrainTest, WatchersSeeItComeAndGo) {
  RawCall watch(channel_, "/grpc.health.v1.Health/Watch",
                HealthRequest(kService));
  EXPECT_EQ(watch.Next(), kNotServing);
  Serve();
  EXPECT_EQ(watch.Next(), kServing);
  KeepLaneBusy();
  std::thread drainer([this] { EXPECT_TRUE(server_->Drain(kPatience)); });
  EXPECT_EQ(watch.Next(), kNotServing);
  FreeLane();
  drainer.join();
}

TEST_P(DrainTest, ListsItsServices) {
  // ServerReflectionRequest{list_services: "*"}.
  RawCall call(channel_,
               "/grpc.reflection.v1alpha.ServerReflection/"
               "ServerReflectionInfo",
               "\x3a\x01*");
  const std::string reply = call.Next();
  EXPECT_THAT(reply, HasSubstr(kService));
  EXPECT_THAT(reply, HasSubstr("grpc.health.v1.Health"));
}

TEST_P(DrainTest, AnswersWhatItAcceptedThenEndsTheStream) {
  Serve();
  KeepLaneBusy();
  grpc::ClientContext context;
  auto stream = stub_->StreamForward(&context);
  for (uint64_t id = 0; id < 4; ++id) {
    ASSERT_TRUE(stream->Write(MakeRequest(id, 2)));
  }
  WaitForQueuedTokens(8);
  std::thread unary([this] {
    const v1::ForwardRequest request = MakeRequest(9, 4);
    grpc::ClientContext unary_context;
    v1::ForwardReply reply;
    EXPECT_TRUE(stub_->Forward(&unary_context, request, &reply).ok());
    ExpectReply(request, reply);
  });
  WaitForQueuedTokens(12);
  StartDrain();
  FreeLane();
  v1::ForwardReply reply;
  std::vector<uint64_t> answered;
  while (stream->Read(&reply)) {
    ExpectReply(MakeRequest(reply.request_id(), 2), reply);
    answered.push_back(reply.request_id());
  }
  EXPECT_THAT(answered, testing::UnorderedElementsAre(0, 1, 2, 3));
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("draining"));
  unary.join();
  EXPECT_TRUE(FinishDrain());
}

TEST_P(DrainTest, ItemsSentWhileDrainingAreNotAccepted) {
  Serve();
  KeepLaneBusy();
  grpc::ClientContext context;
  auto stream = stub_->StreamForward(&context);
  ASSERT_TRUE(stream->Write(MakeRequest(1, 1)));
  WaitForQueuedTokens(1);
  StartDrain();
  for (uint64_t id = 2; id < 5; ++id) stream->Write(MakeRequest(id, 1));
  FreeLane();
  v1::ForwardReply reply;
  bool first = false;
  while (stream->Read(&reply)) {
    if (reply.request_id() == 1) {
      ExpectReply(MakeRequest(1, 1), reply);
      first = true;
    } else {
      EXPECT_EQ(reply.status_code(), grpc::StatusCode::UNAVAILABLE);
    }
  }
  EXPECT_TRUE(first);
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(FinishDrain());
  EXPECT_EQ(control_.batches().size(), 2);
}

TEST_P(DrainTest, IdleStreamsEndAtOnce) {
  Serve();
  grpc::ClientContext context;
  auto stream = stub_->StreamForward(&context);
  v1::ForwardReply reply;
  ASSERT_TRUE(stream->Write(MakeRequest(1, 1)));
  ASSERT_TRUE(stream->Read(&reply));
  EXPECT_TRUE(server_->Drain(kPatience));
  EXPECT_FALSE(stream->Read(&reply));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_P(DrainTest, ClientsThatNeverReadAreCutOff) {
  Serve();
  grpc::ClientContext context;
  auto stream = stub_->StreamForward(&context);
  std::thread writer([&stream] {
    const v1::ForwardRequest request = MakeRequest(1, 8);
    while (stream->Write(request)) {
    }
  });
  WaitUntilAnswersStop();
  EXPECT_FALSE(server_->Drain(std::chrono::seconds(1)));
  EXPECT_EQ(server_->unanswered_requests(), 0u);
  writer.join();
  v1::ForwardReply reply;
  while (stream->Read(&reply)) {
  }
  EXPECT_FALSE(stream->Finish().ok());
}

TEST_P(DrainTest, CountsWhatWasNotAnsweredInTime) {
  Serve();
  control_.Hold();
  std::thread caller([this] {
    EXPECT_EQ(Forward(MakeRequest(1, 1)).error_code(),
              grpc::StatusCode::UNAVAILABLE);
    control_.Release();
  });
  control_.WaitForBatches(1);
  EXPECT_FALSE(server_->Drain(std::chrono::milliseconds(50)));
  caller.join();
  EXPECT_EQ(server_->unanswered_requests(), 1u);
}

TEST_P(DrainTest, LosesNothingUnderLoad) {
  Serve();
  constexpr int kClients = 3;
  std::atomic<uint64_t> answered_tokens{0};
  std::vector<std::thread> clients;
  clients.reserve(kClients);
  for (int client = 0; client < kClients; ++client) {
    clients.emplace_back([this, &answered_tokens] {
      const auto channel = NewChannel(address_);
      const auto stub = v1::FfnService::NewStub(channel);
      grpc::ClientContext context;
      auto stream = stub->StreamForward(&context);
      // One at a time: whatever is answered OK was accepted, and what is
      // accepted must be answered before the stream ends.
      v1::ForwardReply reply;
      for (uint64_t id = 0;; ++id) {
        const v1::ForwardRequest request = MakeRequest(id, 1 + id % 3);
        if (!stream->Write(request) || !stream->Read(&reply)) break;
        EXPECT_EQ(reply.request_id(), id);
        if (reply.status_code() != 0) {
          EXPECT_EQ(reply.status_code(), grpc::StatusCode::UNAVAILABLE);
        } else {
          ExpectReply(request, reply);
          answered_tokens += request.tokens();
        }
      }
      EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
    });
  }
  control_.WaitForBatches(200);
  EXPECT_TRUE(server_->Drain(kPatience));
  for (std::thread& client : clients) client.join();
  const double computed = Metric("sparse_ffn_layer_tokens_total{layer=\"0\"}");
  EXPECT_EQ(Metric("sparse_ffn_requests_in_flight"), 0);
  EXPECT_EQ(computed, static_cast<double>(answered_tokens));
  EXPECT_GE(computed, 200);
}

}  // namespace
}  // namespace sparse_ffn
