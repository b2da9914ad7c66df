// Calls of every kind, answered, dropped and held back, against a server whose
// lane is a fake.
#include "tests/integration/service_test.h"

#include <gmock/gmock.h>
#include <grpc/support/time.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <thread>

#include "server/service/ffn_service.h"

namespace sparse_ffn {
namespace {

using testing::HasSubstr;

INSTANTIATE_TEST_SUITE_P(Addresses, ServiceTest,
                         testing::Values("127.0.0.1:0", "unix:"),
                         [](const auto& address) {
                           return std::string(address.index == 0 ? "Tcp"
                                                                 : "Unix");
                         });

TEST_P(ServiceTest, SaysWhatItServes) {
  grpc::ClientContext context;
  v1::GetModelInfoReply info;
  const grpc::Status status = stub_->GetModelInfo(&context, {}, &info);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(info.model_name(), "fake");
  EXPECT_THAT(info.layers(), testing::ElementsAre(0, 1, 5));
}

TEST_P(ServiceTest, ComputesUnaryRequests) {
  for (uint32_t tokens : {1, 3, 8, 2}) {
    v1::ForwardRequest request = MakeRequest(tokens, tokens, 10);
    request.set_layer(tokens % 2 == 0 ? 5 : 0);
    const grpc::Status status = Forward(request);
    ASSERT_TRUE(status.ok()) << status.error_message();
    ExpectReply(request, reply_);
    EXPECT_EQ(reply_.stats().path(), "sparse");
  }
}

TEST_P(ServiceTest, ConvertsBothWays) {
  v1::ForwardRequest request;
  request.set_tokens(1);
  request.set_dtype(v1::DATA_TYPE_BFLOAT16);
  request.set_execution(v1::EXECUTION_DENSE);
  const uint16_t ones[kHiddenSize] = {0x3f80, 0x4000, 0xbf80, 0x0000};
  const uint16_t expected[kHiddenSize] = {0x4000, 0x4080, 0xc000, 0x0000};
  request.set_hidden_states(ones, sizeof(ones));
  ASSERT_TRUE(Forward(request).ok());
  ASSERT_EQ(reply_.hidden_states().size(), sizeof(expected));
  EXPECT_EQ(
      std::memcmp(reply_.hidden_states().data(), expected, sizeof(expected)),
      0);
  EXPECT_EQ(reply_.dtype(), v1::DATA_TYPE_BFLOAT16);
  EXPECT_EQ(reply_.stats().path(), "dense");
}

TEST_P(ServiceTest, AnswersManyInFlightInAnyOrder) {
  constexpr uint64_t kRequests = 500;
  grpc::ClientContext context;
  auto stream = stub_->StreamForward(&context);
  std::map<uint64_t, v1::ForwardRequest> sent;
  for (uint64_t id = 0; id < kRequests; ++id) {
    sent[id] = MakeRequest(id, 1 + id % 3, static_cast<float>(id % 50));
    sent[id].set_layer(id % 3 == 0 ? 5 : static_cast<uint32_t>(id % 2));
  }
  std::thread writer([&] {
    for (const auto& [id, request] : sent) EXPECT_TRUE(stream->Write(request));
    stream->WritesDone();
  });
  std::set<uint64_t> answered;
  v1::ForwardReply reply;
  size_t full = 0;
  while (stream->Read(&reply)) {
    const auto request = sent.find(reply.request_id());
    ASSERT_NE(request, sent.end());
    EXPECT_TRUE(answered.insert(reply.request_id()).second);
    if (reply.status_code() == grpc::StatusCode::RESOURCE_EXHAUSTED) {
      ++full;
    } else {
      ExpectReply(request->second, reply);
    }
  }
  writer.join();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(answered.size(), kRequests);
  EXPECT_EQ(Metric("sparse_ffn_requests_rejected_total{reason=\"queue_full\"}"),
            static_cast<double>(full));
}

TEST_P(ServiceTest, BatchesWhatWaited) {
  KeepLaneBusy();
  grpc::ClientContext context;
  auto stream = stub_->StreamForward(&context);
  for (uint64_t id = 0; id < 4; ++id) {
    ASSERT_TRUE(stream->Write(MakeRequest(id, 2, 10)));
  }
  WaitForQueuedTokens(8);
  FreeLane();
  v1::ForwardReply reply;
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(stream->Read(&reply));
    ExpectReply(MakeRequest(reply.request_id(), 2, 10), reply);
    EXPECT_EQ(reply.stats().batch_tokens(), 8);
    EXPECT_EQ(reply.stats().union_active_neurons(), 11);
  }
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_P(ServiceTest, TellsOfThePassesOfItsTokens) {
  control_.SetPassTokens(3);
  KeepLaneBusy();
  grpc::ClientContext context;
  auto stream = stub_->StreamForward(&context);
  for (uint64_t id = 0; id < 4; ++id) {
    ASSERT_TRUE(stream->Write(MakeRequest(id, 2, static_cast<float>(10 * id))));
  }
  WaitForQueuedTokens(8);
  FreeLane();
  v1::ForwardReply reply;
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(stream->Read(&reply));
    EXPECT_EQ(reply.status_code(), 0) << reply.status_message();
    EXPECT_EQ(reply.tokens(), 2);
    // 0 0 1, 1 2 2, 3 3: of the second request, one token and one.
    EXPECT_EQ(reply.stats().batch_tokens(), reply.request_id() == 3 ? 2 : 3);
    constexpr uint64_t kLargest[] = {10, 21, 21, 31};
    EXPECT_EQ(reply.stats().union_active_neurons(),
              kLargest[reply.request_id()]);
  }
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_P(ServiceTest, RefusesWhatTheQueueCannotHold) {
  KeepLaneBusy();
  grpc::ClientContext context;
  auto stream = stub_->StreamForward(&context);
  ASSERT_TRUE(stream->Write(MakeRequest(1, 8)));
  ASSERT_TRUE(stream->Write(MakeRequest(2, 8)));
  WaitForQueuedTokens(kMaxQueuedTokens);
  const grpc::Status status = Forward(MakeRequest(3, 1));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("16 of at most 16 tokens"));
  ASSERT_TRUE(stream->Write(MakeRequest(4, 1)));
  v1::ForwardReply reply;
  ASSERT_TRUE(stream->Read(&reply));
  EXPECT_EQ(reply.request_id(), 4);
  EXPECT_EQ(reply.status_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  FreeLane();
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(stream->Read(&reply));
    ExpectReply(MakeRequest(reply.request_id(), 8), reply);
  }
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_P(ServiceTest, DropsWhatIsLate) {
  KeepLaneBusy();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  std::thread caller([this, &context] {
    v1::ForwardReply reply;
    EXPECT_EQ(stub_->Forward(&context, MakeRequest(1, 3), &reply).error_code(),
              grpc::StatusCode::DEADLINE_EXCEEDED);
  });
  WaitForQueuedTokens(3);
  clock_ahead_ = 2 * kPatience;
  FreeLane();
  caller.join();
  WaitForRequestsInFlight(0);
  EXPECT_EQ(control_.batches().size(), 1);
  EXPECT_EQ(Metric("sparse_ffn_requests_rejected_total{reason=\"deadline\"}"),
            1);
}

TEST_P(ServiceTest, AFullQueueLetsGoOfLateRequests) {
  KeepLaneBusy();
  const auto deadline = std::chrono::system_clock::now() + kPatience;
  grpc::ClientContext late_context;
  late_context.set_deadline(deadline);
  auto late_stream = stub_->StreamForward(&late_context);
  ASSERT_TRUE(late_stream->Write(MakeRequest(1, 8)));
  WaitForQueuedTokens(8);
  std::thread late_caller([this, deadline] {
    grpc::ClientContext context;
    context.set_deadline(deadline);
    v1::ForwardReply reply;
    EXPECT_EQ(stub_->Forward(&context, MakeRequest(2, 8), &reply).error_code(),
              grpc::StatusCode::DEADLINE_EXCEEDED);
  });
  WaitForQueuedTokens(kMaxQueuedTokens);
  clock_ahead_ = 2 * kPatience;
  grpc::ClientContext context;
  auto stream = stub_->StreamForward(&context);
  ASSERT_TRUE(stream->Write(MakeRequest(3, 8)));
  // The late ones are answered although the lane is busy still.
  late_caller.join();
  v1::ForwardReply reply;
  ASSERT_TRUE(late_stream->Read(&reply));
  EXPECT_EQ(reply.request_id(), 1);
  EXPECT_EQ(reply.status_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  WaitForQueuedTokens(8);
  FreeLane();
  ASSERT_TRUE(stream->Read(&reply));
  ExpectReply(MakeRequest(3, 8), reply);
  for (ClientStream* open : {late_stream.get(), stream.get()}) {
    open->WritesDone();
    EXPECT_TRUE(open->Finish().ok());
  }
}

TEST_P(ServiceTest, RefusesWhatIsLateAlready) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() -
                       std::chrono::seconds(1));
  v1::ForwardReply reply;
  EXPECT_EQ(stub_->Forward(&context, MakeRequest(1, 1), &reply).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(control_.batches().size(), 0);
}

// As a client may send it; those at hand send at most 27000 hours.
TEST(DeadlineTest, MayBeHoweverFarAway) {
  const SteadyTime now = std::chrono::steady_clock::now();
  const auto in_hours = [](int64_t hours) {
    return DeadlineOf(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                   gpr_time_from_hours(hours, GPR_TIMESPAN)));
  };
  EXPECT_LT(in_hours(-1), now);
  EXPECT_GT(in_hours(1), now + std::chrono::minutes(59));
  EXPECT_LT(in_hours(1), now + std::chrono::minutes(61));
  // Nanoseconds since 1970, and from now, end before these.
  for (int64_t hours : {2100000, 2562047, 2562048, 99999999}) {
    EXPECT_EQ(in_hours(hours), SteadyTime::max()) << hours;
  }
  EXPECT_EQ(DeadlineOf(gpr_inf_future(GPR_CLOCK_REALTIME)), SteadyTime::max());
  EXPECT_LT(DeadlineOf(gpr_inf_past(GPR_CLOCK_REALTIME)), now);
}

TEST_P(ServiceTest, DropsACancelledUnaryCall) {
  ExpectDropsCancelled([&] {
    grpc::ClientContext context;
    std::thread caller([&] {
      v1::ForwardReply reply;
      EXPECT_EQ(
          stub_->Forward(&context, MakeRequest(1, 3), &reply).error_code(),
          grpc::StatusCode::CANCELLED);
    });
    WaitForQueuedTokens(3);
    context.TryCancel();
    caller.join();
  });
  EXPECT_EQ(Metric("sparse_ffn_requests_rejected_total{reason=\"cancelled\"}"),
            1);
}

TEST_P(ServiceTest, DropsACancelledStream) {
  ExpectDropsCancelled([&] {
    grpc::ClientContext context;
    auto stream = stub_->StreamForward(&context);
    for (uint64_t id = 0; id < 4; ++id) {
      ASSERT_TRUE(stream->Write(MakeRequest(id, 3)));
    }
    WaitForQueuedTokens(12);
    context.TryCancel();
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  });
}

TEST_P(ServiceTest, HoldsAStreamBackThatDoesNotRead) {
  // Far more than one stream may have in flight; the writer must be stopped by
  // flow control, not by memory.
  grpc::ClientContext context;
  auto stream = stub_->StreamForward(&context);
  constexpr uint64_t kRequests = 2000;
  std::thread writer([&] {
    for (uint64_t id = 0; id < kRequests; ++id) {
      if (!stream->Write(MakeRequest(id, 8))) break;
    }
    stream->WritesDone();
  });
  WaitUntilAnswersStop();
  uint64_t replies = 0;
  v1::ForwardReply reply;
  while (stream->Read(&reply)) ++replies;
  writer.join();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(replies, kRequests);
}

TEST_P(ServiceTest, DeviceFailureMakesItUnavailable) {
  KeepLaneBusy();
  grpc::ClientContext context;
  auto stream = stub_->StreamForward(&context);
  ASSERT_TRUE(stream->Write(MakeRequest(1, 1)));
  WaitForQueuedTokens(1);
  control_.ReleaseOne();
  control_.WaitForBatches(2);
  control_.SetError(absl::InternalError("error 719"));
  control_.ReleaseOne();
  v1::ForwardReply reply;
  ASSERT_TRUE(stream->Read(&reply));
  EXPECT_EQ(reply.status_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(Forward(MakeRequest(2, 1)).error_code(),
            grpc::StatusCode::UNAVAILABLE);
  ASSERT_TRUE(stream->Write(MakeRequest(3, 1)));
  ASSERT_TRUE(stream->Read(&reply));
  EXPECT_EQ(reply.status_code(), grpc::StatusCode::UNAVAILABLE);
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_P(ServiceTest, MetricsSayWhatTheRepliesSaid) {
  double active = 0;
  double tokens = 0;
  for (uint32_t count = 1; count <= 8; ++count) {
    ASSERT_TRUE(Forward(MakeRequest(count, count, 10)).ok());
    for (uint32_t neurons : reply_.stats().active_neurons()) active += neurons;
    tokens += count;
  }
  // Recorded after the replies are sent, the evaluated neurons at the end.
  while (Metric("sparse_ffn_neurons_evaluated_total{layer=\"0\"}") !=
         tokens * kIntermediateSize) {
    std::this_thread::yield();
  }
  WaitForRequestsInFlight(0);
  EXPECT_EQ(Metric("sparse_ffn_layer_tokens_total{layer=\"0\"}"), tokens);
  EXPECT_EQ(Metric("sparse_ffn_neurons_active_total{layer=\"0\"}"), active);
  EXPECT_NEAR(Metric("sparse_ffn_activation_sparsity_ratio_sum"),
              tokens - active / kIntermediateSize, 1e-9);
  EXPECT_EQ(Metric("sparse_ffn_activation_sparsity_ratio_count"), tokens);
  EXPECT_EQ(Metric("sparse_ffn_request_duration_seconds_count{code=\"OK\","
                   "method=\"Forward\"}"),
            8);
}

TEST_P(ServiceTest, SecondServerCannotHaveTheAddress) {
  Metrics metrics("test");
  FfnServerOptions options;
  options.listen = {address_};
  options.max_request_bytes = 1 << 20;
  absl::StatusOr<std::unique_ptr<FfnServer>> second =
      FfnServer::Listen(options, &metrics);
  ASSERT_FALSE(second.ok());
  EXPECT_TRUE(absl::IsUnavailable(second.status())) << second.status();
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(address_));
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("in use"));
  EXPECT_TRUE(Forward(MakeRequest(1, 1)).ok());
}

}  // namespace
}  // namespace sparse_ffn
