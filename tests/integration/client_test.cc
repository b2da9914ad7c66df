#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "client/ffn_client.h"
#include "tests/integration/fake_ffn_service.h"

namespace sparse_ffn {
namespace {

using testing::HasSubstr;

constexpr size_t kHidden = FakeFfnService::kHiddenSize;

// Row-major [tokens, kHidden] of distinct values.
struct Rows {
  explicit Rows(size_t count, float first = 0) : values(count * kHidden) {
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = first + 0.5f * static_cast<float>(i);
    }
  }
  Matrix matrix() {
    return {values.data(), values.size() / kHidden, kHidden,
            DataType::kFloat32};
  }
  std::vector<float> Plus(float addend) const {
    std::vector<float> sums = values;
    for (float& value : sums) value += addend;
    return sums;
  }
  std::vector<float> values;
};

class ClientTest : public testing::Test {
 protected:
  void SetUp() override {
    auto client = FfnClient::Connect(server_.target(),
                                     {.connect_timeout = absl::Seconds(60)});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }

  FakeFfnServer server_;
  std::unique_ptr<FfnClient> client_;
};

TEST_F(ClientTest, ModelInfo) {
  const auto info = client_->GetModelInfo();
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->model_name(), "fake");
  EXPECT_EQ(info->layers_size(), 3);
}

TEST_F(ClientTest, WaitsWhileTheModelLoads) {
  server_.service()->loading = true;
  std::thread loader([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(120));
    server_.service()->loading = false;
  });
  const auto info = client_->WaitForModelInfo(absl::Seconds(60));
  loader.join();
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->model_name(), "fake");
}

TEST_F(ClientTest, SaysWhyItWaitedInVain) {
  server_.service()->loading = true;
  server_.service()->loading_answers = 1;
  EXPECT_EQ(client_->WaitForModelInfo(absl::Seconds(3)).status(),
            absl::UnavailableError("still loading"));
}

TEST_F(ClientTest, UnaryForward) {
  for (const size_t tokens : {1, 7, 16}) {
    Rows input(tokens);
    Rows output(tokens);
    v1::ForwardStats stats;
    const absl::Status status =
        client_->Forward(2, input.matrix(), output.matrix(),
                         {.execution = v1::EXECUTION_DENSE}, &stats);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(output.values, input.Plus(2));
    EXPECT_EQ(stats.active_neurons_size(), static_cast<int>(tokens));
    EXPECT_EQ(stats.path(), "dense");
  }
}

TEST_F(ClientTest, ErrorsKeepCodeAndMessage) {
  Rows input(1);
  Rows output(1);
  const absl::Status missing =
      client_->Forward(9, input.matrix(), output.matrix());
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(missing.message(), "no layer 9");
  for (int code = 1; code <= 16; ++code) {
    server_.service()->fail_with = code;
    EXPECT_EQ(
        client_->Forward(0, input.matrix(), output.matrix()),
        absl::Status(static_cast<absl::StatusCode>(code), "told to fail"));
  }
}

TEST_F(ClientTest, BadArgumentsAreRefusedHere) {
  Rows one(1);
  Rows two(2);
  EXPECT_EQ(client_->Forward(0, one.matrix(), two.matrix()).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(client_->Forward(-1, one.matrix(), one.matrix()).code(),
            absl::StatusCode::kInvalidArgument);
  Matrix half = one.matrix();
  half.dtype = DataType::kFloat16;
  const absl::Status status = client_->Forward(0, one.matrix(), half);
  EXPECT_THAT(std::string(status.message()), HasSubstr("[1, 8] float16"));
}

TEST_F(ClientTest, ReplyOfWrongSizeIsAnErrorNotACrash) {
  server_.service()->truncate_replies = true;
  Rows input(1);
  Rows output(1);
  const absl::Status status =
      client_->Forward(0, input.matrix(), output.matrix());
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("hidden_states is 31, expected 32"));
}

TEST_F(ClientTest, RepliesThatContradictTheProtocolAreErrors) {
  struct Wrong {
    std::function<void(v1::ForwardReply*)> spoil;
    v1::Execution execution;
    const char* message;  // Empty: nothing is wrong.
  };
  using Reply = v1::ForwardReply;
  const auto stats = [](auto change) {
    return [change](Reply* reply) { change(reply->mutable_stats()); };
  };
  using Stats = v1::ForwardStats;
  const Wrong all[] = {
      {[](Reply*) {}, v1::EXECUTION_AUTO, ""},
      {[](Reply* r) {
         r->set_status_code(5);
         r->set_status_message("no such layer");
       },
       v1::EXECUTION_AUTO, "status_code is 5 (\"no such layer\"), expected 0"},
      {[](Reply* r) { r->set_status_message("?"); }, v1::EXECUTION_AUTO,
       "status_message is \"?\", expected none"},
      {[](Reply* r) { r->set_request_id(r->request_id() + 1); },
       v1::EXECUTION_AUTO, "request_id is "},
      {[](Reply* r) { r->clear_request_id(); }, v1::EXECUTION_AUTO,
       "request_id is 0, expected "},
      {[](Reply* r) { r->set_tokens(3); }, v1::EXECUTION_AUTO,
       "tokens is 3, expected 2"},
      {[](Reply* r) { r->set_dtype(v1::DATA_TYPE_FLOAT16); },
       v1::EXECUTION_AUTO, "dtype is 2, expected 1"},
      {[](Reply* r) { r->clear_stats(); }, v1::EXECUTION_AUTO,
       "stats is absent"},
      {stats([](Stats* s) { s->add_active_neurons(1); }), v1::EXECUTION_AUTO,
       "active_neurons is 3, expected one for each of 2 tokens"},
      {stats([](Stats* s) { s->set_active_neurons(1, 51); }),
       v1::EXECUTION_AUTO, "union_active_neurons is 50, expected from 51"},
      {stats([](Stats* s) { s->set_union_active_neurons(101); }),
       v1::EXECUTION_AUTO, "union_active_neurons is 101, expected from 25"},
      {stats([](Stats* s) { s->set_batch_tokens(0); }), v1::EXECUTION_AUTO,
       "batch_tokens is 0, expected 1 or more"},
      {stats([](Stats* s) { s->set_batch_tokens(1); }), v1::EXECUTION_AUTO, ""},
      {stats([](Stats* s) { s->set_batch_tokens(2); }), v1::EXECUTION_AUTO, ""},
      {stats([](Stats* s) { s->set_path("swift\n"); }), v1::EXECUTION_AUTO,
       "path is \"swift\\n\", expected \"sparse\", \"dense\" or \"fused\""},
      {stats([](Stats* s) { s->set_path("fused"); }), v1::EXECUTION_SPARSE, ""},
      {stats([](Stats* s) { s->set_path("dense"); }), v1::EXECUTION_SPARSE,
       "path is \"dense\", expected another: sparse was asked for"},
      {stats([](Stats* s) { s->set_path("fused"); }), v1::EXECUTION_DENSE,
       "path is \"fused\", expected \"dense\""}};
  for (const Wrong& wrong : all) {
    SCOPED_TRACE(wrong.message);
    server_.service()->SpoilReplies(wrong.spoil);
    Rows input(2);
    Rows output(2);
    const absl::Status status = client_->Forward(
        0, input.matrix(), output.matrix(), {.execution = wrong.execution});
    if (*wrong.message == '\0') {
      EXPECT_TRUE(status.ok()) << status;
      continue;
    }
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(wrong.message));
  }
}

TEST_F(ClientTest, Timeout) {
  server_.service()->stall_until_ms = 1'000'000'000;
  Rows input(1);
  Rows output(1);
  const absl::Status status = client_->Forward(
      0, input.matrix(), output.matrix(), {.timeout = absl::Milliseconds(30)});
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ClientTest, ThreadsShareAClient) {
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 50; ++i) {
        Rows input(1, static_cast<float>(100 * t + i));
        Rows output(1);
        EXPECT_TRUE(
            client_->Forward(t % 3, input.matrix(), output.matrix()).ok());
        EXPECT_EQ(output.values, input.Plus(static_cast<float>(t % 3)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(ClientTest, StreamMatchesRepliesOutOfOrder) {
  constexpr int kRequests = 201;
  server_.service()->swap_pairs = true;
  auto stream = client_->NewStream();
  std::thread sender([&stream] {
    for (int i = 0; i < kRequests; ++i) {
      Rows input(1 + i % 3, static_cast<float>(i));
      EXPECT_TRUE(stream->Send(i, i % 3, input.matrix()).ok());
    }
    stream->CloseSend();
  });
  std::vector<uint64_t> order;
  StreamReply reply;
  while (stream->Receive(&reply)) {
    ASSERT_TRUE(reply.status.ok()) << reply.status;
    const uint64_t i = reply.request_id;
    order.push_back(i);
    ASSERT_EQ(reply.hidden_states.rows, 1 + i % 3);
    ASSERT_EQ(reply.hidden_states.cols, kHidden);
    const auto* data = static_cast<const float*>(reply.hidden_states.data);
    const Rows input(1 + i % 3, static_cast<float>(i));
    EXPECT_EQ(std::vector<float>(data, data + input.values.size()),
              input.Plus(static_cast<float>(i % 3)));
    EXPECT_EQ(reply.stats->active_neurons_size(), static_cast<int>(1 + i % 3));
  }
  sender.join();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(std::set<uint64_t>(order.begin(), order.end()).size(), kRequests);
  EXPECT_EQ(order[0], 1u);
}

TEST_F(ClientTest, StreamLivesOnAfterABadItem) {
  auto stream = client_->NewStream();
  Rows input(1);
  StreamReply reply;
  ASSERT_TRUE(stream->Send(1, 77, input.matrix()).ok());
  ASSERT_TRUE(stream->Receive(&reply));
  EXPECT_EQ(reply.request_id, 1u);
  EXPECT_EQ(reply.status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(reply.stats, nullptr);
  ASSERT_TRUE(stream->Send(2, 0, input.matrix()).ok());
  ASSERT_TRUE(stream->Receive(&reply));
  EXPECT_TRUE(reply.status.ok());
  server_.service()->truncate_replies = true;
  ASSERT_TRUE(stream->Send(3, 0, input.matrix()).ok());
  ASSERT_TRUE(stream->Receive(&reply));
  EXPECT_EQ(reply.status.code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(ClientTest, StreamItemsWithImpossibleStatsAreErrors) {
  server_.service()->SpoilReplies([](v1::ForwardReply* reply) {
    reply->mutable_stats()->set_batch_tokens(0);
  });
  auto stream = client_->NewStream();
  Rows input(1);
  ASSERT_TRUE(stream->Send(1, 0, input.matrix()).ok());
  StreamReply reply;
  ASSERT_TRUE(stream->Receive(&reply));
  EXPECT_EQ(reply.status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(reply.stats, nullptr);
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(ClientTest, StreamEndsWithTheStatusOfTheServer) {
  server_.service()->fail_with = grpc::StatusCode::UNAVAILABLE;
  auto stream = client_->NewStream();
  Rows input(1);
  ASSERT_TRUE(stream->Send(1, 0, input.matrix()).ok());
  StreamReply reply;
  EXPECT_FALSE(stream->Receive(&reply));
  EXPECT_EQ(stream->Finish(), absl::UnavailableError("told to fail"));
}

TEST_F(ClientTest, StreamCancelled) {
  server_.service()->stall_until_ms = 1'000'000'000;
  auto stream = client_->NewStream();
  Rows input(1);
  ASSERT_TRUE(stream->Send(1, 0, input.matrix()).ok());
  stream->Cancel();
  StreamReply reply;
  EXPECT_FALSE(stream->Receive(&reply));
  EXPECT_EQ(stream->Finish().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(stream->Send(2, 0, input.matrix()).code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(ClientTest, StreamMayBeDroppedAtAnyMoment) {
  Rows input(1);
  { auto unused = client_->NewStream(); }
  auto stream = client_->NewStream();
  ASSERT_TRUE(stream->Send(1, 0, input.matrix()).ok());
}

TEST(ConnectTest, UnreachableServerIsSaidInOneSentence) {
  std::string target;
  {
    FakeFfnServer gone;
    target = gone.target();
  }
  const auto client =
      FfnClient::Connect(target, {.connect_timeout = absl::Milliseconds(200)});
  EXPECT_EQ(client.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(client.status().message()), HasSubstr(target));
}

TEST(ConnectTest, MalformedTargets) {
  for (const std::string target : {"", "localhost", ":", ":1", "a:", "unix:"}) {
    EXPECT_EQ(FfnClient::Connect(target).status().code(),
              absl::StatusCode::kInvalidArgument)
        << target;
  }
}

TEST(NamesTest, RoundTrip) {
  for (const DataType dtype :
       {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16}) {
    EXPECT_EQ(*FromWire(ToWire(dtype)), dtype);
    EXPECT_EQ(*DataTypeNamed(WireName(ToWire(dtype))), dtype);
  }
  EXPECT_FALSE(FromWire(v1::DATA_TYPE_UNSPECIFIED).ok());
  EXPECT_FALSE(FromWire(static_cast<v1::DataType>(9)).ok());
  EXPECT_FALSE(DataTypeNamed("int8").ok());
  EXPECT_EQ(WireName(static_cast<v1::DataType>(9)), "unknown");
  EXPECT_EQ(*ParseExecution("sparse"), v1::EXECUTION_SPARSE);
  EXPECT_FALSE(ParseExecution("fast").ok());
}

}  // namespace
}  // namespace sparse_ffn
