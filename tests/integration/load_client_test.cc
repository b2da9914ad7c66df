#include "client/load/load_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "client/ffn_client.h"
#include "client/load/load_report.h"
#include "tests/integration/fake_ffn_service.h"

namespace sparse_ffn {
namespace {

using testing::HasSubstr;

constexpr size_t kHidden = FakeFfnService::kHiddenSize;
constexpr int64_t kMillisecondNs = 1'000'000;

// Each test runs with unary calls (false) and with a stream (true).
class LoadClientTest : public testing::TestWithParam<bool> {
 protected:
  LoadClientTest()
      : rows_(5 * kHidden, 1.0f),
        inputs_({rows_.data(), 5, kHidden, DataType::kFloat32},
                DataType::kFloat32, 2) {
    plan_.stream = GetParam();
    plan_.tokens = 2;
    plan_.layers = {0, 1, 2};
    plan_.seed = 3;
    // However slow the machine is, a late reply is not a lost one.
    plan_.patience_ns = 60'000 * kMillisecondNs;
  }

  void SetTimes(int64_t warmup_ms, int64_t duration_ms) {
    plan_.start_ns = SteadyNowNs();
    plan_.measure_ns = plan_.start_ns + warmup_ms * kMillisecondNs;
    plan_.end_ns = plan_.measure_ns + duration_ms * kMillisecondNs;
    server_.service()->StartClock();
  }

  // Before SetTimes where no time may be lost.
  void Connect() {
    auto connection = FfnClient::Connect(
        server_.target(), {.connect_timeout = absl::Seconds(60)});
    ASSERT_TRUE(connection.ok()) << connection.status();
    connection_ = *std::move(connection);
  }

  LoadResult Run() {
    if (connection_ == nullptr) Connect();
    LoadClient client(connection_->channel(), plan_, inputs_, 0);
    client.Run(&stop_);
    EXPECT_GE(client.live().completed + client.live().errors,
              client.result().latency.count() + client.result().error_count());
    return client.result();
  }

  template <typename Condition>
  static void WaitUntil(const Condition& condition) {
    while (!condition()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  FakeFfnServer server_;
  std::unique_ptr<FfnClient> connection_;
  std::vector<float> rows_;
  InputRows inputs_;
  LoadPlan plan_;
  std::atomic<bool> stop_{false};
};

TEST_P(LoadClientTest, ClosedLoopSendsEachRequestOnce) {
  plan_.in_flight = 4;
  plan_.requests = 301;
  const LoadResult result = Run();
  EXPECT_EQ(result.arrivals, 301u);
  EXPECT_EQ(result.latency.count(), 301u);
  EXPECT_EQ(result.completed, 301u);
  EXPECT_EQ(result.error_count(), 0u);
  EXPECT_GT(result.latency.min_ns(), 0u);
  const std::vector<uint32_t> layers = server_.service()->seen_layers();
  EXPECT_EQ(layers.size(), 301u);
  EXPECT_EQ(std::count(layers.begin(), layers.end(), 1u), 100);
}

TEST_P(LoadClientTest, MeansOfTheServer) {
  plan_.requests = 10;
  plan_.execution = v1::EXECUTION_DENSE;
  const LoadResult result = Run();
  EXPECT_EQ(result.server.replies, 10u);
  EXPECT_EQ(result.server.tokens, 20u);
  EXPECT_EQ(result.server.batch_tokens, 30u);
  EXPECT_EQ(result.server.queue_ns, 10'000u);
  EXPECT_EQ(result.server.compute_ns, 200'000u);
  EXPECT_EQ(result.server.active_neurons, 20u * 25u);
  EXPECT_EQ(result.server.evaluated_neurons, 20u * 100u);
  EXPECT_EQ(result.server.union_active_neurons, 10u * 50u);
  EXPECT_EQ(result.server.paths.at("dense"), 10u);
}

TEST_P(LoadClientTest, DecodeWalksTheLayersInOrder) {
  plan_.shape = LoadShape::kDecode;
  plan_.requests = 30;
  const LoadResult result = Run();
  EXPECT_EQ(result.token_latency.count(), 10u);
  const std::vector<uint32_t> layers = server_.service()->seen_layers();
  ASSERT_EQ(layers.size(), 30u);
  for (size_t i = 0; i < layers.size(); ++i) EXPECT_EQ(layers[i], i % 3);
  EXPECT_GE(result.token_latency.min_ns(), 3 * result.latency.min_ns());
  EXPECT_GE(result.token_latency.max_ns(), result.latency.max_ns());
}

TEST_P(LoadClientTest, OpenLoopCountsAStallFromTheIntendedStart) {
  plan_.shape = LoadShape::kOpen;
  plan_.rate_per_second = 500;
  plan_.in_flight = 2;
  // The server stands still for half of the measured second.
  server_.service()->stall_from_ms = 300;
  server_.service()->stall_until_ms = 800;
  SetTimes(100, 1000);
  const LoadResult result = Run();
  EXPECT_EQ(result.error_count(), 0u);
  EXPECT_EQ(result.unsent, 0u);
  EXPECT_EQ(result.latency.count(), result.arrivals);
  EXPECT_NEAR(static_cast<double>(result.arrivals), 500, 120);
  // Only two requests were in flight during the stall, but a quarter of all
  // were meant to start in its first half and waited for 250 ms or more.
  EXPECT_GT(result.latency.QuantileNs(0.8), 250 * kMillisecondNs);
  EXPECT_GT(result.latency.QuantileNs(0.99), 400 * kMillisecondNs);
}

TEST_P(LoadClientTest, ErrorsAreCountedByCode) {
  plan_.layers = {0, 9};
  plan_.requests = 20;
  const LoadResult result = Run();
  EXPECT_EQ(result.latency.count(), 10u);
  ASSERT_EQ(result.errors.size(), 1u);
  const ErrorCount& error = result.errors.at(absl::StatusCode::kNotFound);
  EXPECT_EQ(error.count, 10u);
  EXPECT_EQ(error.first_message, "no layer 9");
}

TEST_P(LoadClientTest, ClosedLoopBacksOffWhileAllRequestsFail) {
  plan_.layers = {9};
  Connect();
  SetTimes(0, 500);
  const LoadResult result = Run();
  EXPECT_EQ(result.latency.count(), 0u);
  // At 0, 10, 30, 70, 150 and 310 ms; with one pause of 10 ms it would be 50.
  EXPECT_GE(result.error_count(), 1u);
  EXPECT_LE(result.error_count(), 6u);
}

TEST_P(LoadClientTest, ClosedLoopForgetsThePauseWithASuccess) {
  plan_.layers = {0, 9};
  plan_.requests = 24;
  Connect();
  SetTimes(0, 5000);
  const LoadResult result = Run();
  // 11 pauses of 10 ms between them. Each twice as long as the one before, up
  // to a second, they would not be sent in time.
  EXPECT_EQ(result.error_count(), 12u);
}

TEST_P(LoadClientTest, RepliesOfWrongSizeAreErrors) {
  server_.service()->truncate_replies = true;
  plan_.requests = 3;
  const LoadResult result = Run();
  EXPECT_EQ(result.latency.count(), 0u);
  EXPECT_EQ(result.errors.at(absl::StatusCode::kInternal).count, 3u);
}

TEST_P(LoadClientTest, RepliesThatContradictTheProtocolAreErrors) {
  server_.service()->SpoilReplies([](v1::ForwardReply* reply) {
    reply->mutable_stats()->set_batch_tokens(0);
  });
  plan_.requests = 3;
  const LoadResult result = Run();
  EXPECT_EQ(result.latency.count(), 0u);
  const ErrorCount& error = result.errors.at(absl::StatusCode::kInternal);
  EXPECT_EQ(error.count, 3u);
  EXPECT_THAT(error.first_message, HasSubstr("batch_tokens is 0, expected"));
}

TEST_P(LoadClientTest, GoesOnAfterABrokenStream) {
  server_.service()->fail_with = grpc::StatusCode::UNAVAILABLE;
  plan_.in_flight = 3;
  std::thread recovery([this] {
    WaitUntil([this] { return server_.service()->told_failures() >= 3; });
    server_.service()->fail_with = 0;
    WaitUntil([this] { return !server_.service()->seen_layers().empty(); });
    stop_ = true;
  });
  const LoadResult result = Run();
  recovery.join();
  EXPECT_GT(result.errors.at(absl::StatusCode::kUnavailable).count, 2u);
  EXPECT_GT(result.latency.count(), 0u);
  EXPECT_EQ(result.arrivals, result.latency.count() + result.error_count());
}

TEST_P(LoadClientTest, StopsWhenTold) {
  plan_.in_flight = 2;
  std::thread stopper([this] {
    WaitUntil([this] { return server_.service()->seen_layers().size() >= 20; });
    stop_ = true;
  });
  const LoadResult result = Run();
  stopper.join();
  EXPECT_GT(result.latency.count(), 0u);
  EXPECT_EQ(result.arrivals, result.latency.count());
}

TEST_P(LoadClientTest, ServerThatNeverAnswersIsGivenUp) {
  server_.service()->stall_until_ms = 1'000'000'000;
  plan_.shape = LoadShape::kOpen;
  plan_.rate_per_second = 1000;
  plan_.in_flight = 4;
  plan_.patience_ns = 100 * kMillisecondNs;
  SetTimes(0, 100);
  const LoadResult result = Run();
  EXPECT_EQ(result.latency.count(), 0u);
  EXPECT_EQ(result.error_count(), 0u);
  EXPECT_EQ(result.cut_off, 4u);
  EXPECT_EQ(result.arrivals, result.unsent + 4);
  EXPECT_GT(result.unsent, 30u);
  LoadReport report;
  report.result.Merge(result);
  report.plan = plan_;
  EXPECT_THAT(FormatLoadReport(report),
              HasSubstr("cut off    4 requests had no reply 0.1 s after"));
  EXPECT_EQ(LoadReportToJson(report)["cut_off"], 4);
  EXPECT_EQ(LoadReportToJson(report)["failed"], 0);
}

TEST_P(LoadClientTest, BusyPolling) {
  plan_.busy_poll = true;
  plan_.requests = 50;
  EXPECT_EQ(Run().latency.count(), 50u);
}

TEST_P(LoadClientTest, ReportHoldsTheFigures) {
  plan_.shape = LoadShape::kDecode;
  plan_.requests = 30;
  LoadReport report;
  report.target = "somewhere:1";
  report.result = Run();
  report.plan = plan_;
  report.window_seconds = 2;
  const nlohmann::json json = LoadReportToJson(report);
  EXPECT_EQ(json["succeeded"], 30);
  EXPECT_EQ(json["achieved_requests_per_second"], 15.0);
  EXPECT_EQ(json["tokens_per_second"], 30.0);
  EXPECT_EQ(json["decode_steps_per_second"], 5.0);
  EXPECT_EQ(json["server_mean"]["queue_us"], 1.0);
  EXPECT_EQ(json["server_mean"]["compute_us"], 20.0);
  EXPECT_EQ(json["server_mean"]["activation_sparsity"], 0.75);
  EXPECT_EQ(json["server_mean"]["union_sparsity"], 0.5);
  EXPECT_EQ(json["server_mean"]["batch_tokens"], 3.0);
  EXPECT_EQ(json["load"]["mode"], GetParam() ? "stream" : "unary");
  EXPECT_EQ(json["cut_off"], 0);
  const std::string text = FormatLoadReport(report);
  EXPECT_THAT(text, testing::Not(HasSubstr("cut off")));
  EXPECT_THAT(text, HasSubstr("achieved   15.0 requests/s"));
  EXPECT_THAT(text, HasSubstr("sparsity 75.00 % a token"));
}

INSTANTIATE_TEST_SUITE_P(Modes, LoadClientTest, testing::Bool(),
                         [](const auto& instance) {
                           return instance.param ? "Stream" : "Unary";
                         });

// With a stream a start is little more than a note to its writer.
class UnaryLoadClientTest : public LoadClientTest {};

// However many may be in flight: so many take longer to start than the load is
// to last.
TEST_P(UnaryLoadClientTest, ClosedLoopStartsNoneBeyondItsTime) {
  plan_.in_flight = 50'000;
  Connect();
  LoadClient client(connection_->channel(), plan_, inputs_, 0);
  SetTimes(0, 100);
  client.Run(&stop_);
  const LoadResult& result = client.result();
  EXPECT_GT(result.arrivals, 0u);
  EXPECT_LT(result.arrivals, plan_.in_flight);
  EXPECT_EQ(result.latency.count(), result.arrivals);
}

INSTANTIATE_TEST_SUITE_P(Modes, UnaryLoadClientTest, testing::Values(false));

TEST(InputRowsTest, GoesRoundAndRound) {
  const std::vector<float> rows = {1, 2, 3, 4, 5, 6};  // [3, 2]
  const InputRows inputs({rows.data(), 3, 2, DataType::kFloat32},
                         DataType::kFloat32, 7);
  for (size_t first = 0; first < 9; ++first) {
    const absl::string_view bytes = inputs.Request(first);
    ASSERT_EQ(bytes.size(), 14 * sizeof(float));
    std::vector<float> values(14);
    std::copy(bytes.begin(), bytes.end(),
              reinterpret_cast<char*>(values.data()));
    for (size_t i = 0; i < 14; ++i) {
      EXPECT_EQ(values[i], rows[(2 * first + i) % 6]);
    }
  }
}

}  // namespace
}  // namespace sparse_ffn
