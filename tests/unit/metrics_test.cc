#include "server/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

namespace sparse_ffn {
namespace {

using testing::HasSubstr;

constexpr size_t kHiddenSize = 8;
constexpr size_t kIntermediateSize = 100;

// Value of the series that the text names so, NaN where it is not there.
double Value(const Metrics& metrics, const std::string& series) {
  const std::string text = "\n" + metrics.Text();
  const size_t at = text.find("\n" + series + " ");
  if (at == std::string::npos) return NAN;
  return std::strtod(text.c_str() + at + 2 + series.size(), nullptr);
}

class MetricsTest : public testing::Test {
 protected:
  MetricsTest() : metrics_("1.2.3") {
    MetricsModel model;
    model.name = "a model";
    model.weights_hash = "00ff";
    model.backend = "cpu";
    model.config.hidden_size = kHiddenSize;
    model.config.intermediate_size = kIntermediateSize;
    model.config.weights_dtype = DataType::kBFloat16;
    model.config.activation = Activation::kFatRelu;
    model.config.threshold = 0.5F;
    model.layers = {2, 5};
    model.weights_bytes = 4800;
    metrics_.SetModel(model);
  }

  void Record(int layer, const std::vector<uint32_t>& active,
              uint32_t union_active, FfnPath path,
              const std::vector<FfnPass>& passes = {}) {
    const std::vector<uint64_t> queue_ns = {10000, 20000};
    BatchRecord batch;
    batch.layer = layer;
    batch.tokens = active.size();
    batch.queue_ns = queue_ns;
    batch.stats.active_neurons = active;
    batch.stats.union_active_neurons = union_active;
    batch.stats.path = path;
    batch.stats.passes = passes;
    batch.stats.gate_ns = 30000;
    batch.stats.compute_ns = 2000000;
    metrics_.RecordBatch(batch);
  }

  Metrics metrics_;
};

TEST_F(MetricsTest, DescribesBuildAndModel) {
  const std::string text = metrics_.Text();
  EXPECT_THAT(text, HasSubstr("version=\"1.2.3\""));
  EXPECT_THAT(text, HasSubstr("model=\"a model\""));
  EXPECT_THAT(text, HasSubstr("weights_hash=\"00ff\""));
  EXPECT_THAT(text, HasSubstr("threshold=\"0.5\""));
  EXPECT_THAT(text, HasSubstr("layers=\"2\""));
  EXPECT_EQ(Value(metrics_, "sparse_ffn_weights_bytes"), 4800);
}

TEST_F(MetricsTest, CountsSparsity) {
  Record(2, {10, 20}, 25, FfnPath::kSparse);
  Record(2, {30}, 30, FfnPath::kSparse);
  Record(5, {0}, 0, FfnPath::kDense);
  const auto layer_2 = [this](const char* name) {
    return Value(metrics_, std::string(name) + "{layer=\"2\"}");
  };
  EXPECT_EQ(layer_2("sparse_ffn_neurons_active_total"), 60);
  EXPECT_EQ(layer_2("sparse_ffn_neurons_evaluated_total"), 300);
  EXPECT_EQ(layer_2("sparse_ffn_union_neurons_active_total"), 55);
  EXPECT_EQ(layer_2("sparse_ffn_union_neurons_evaluated_total"), 200);
  EXPECT_EQ(layer_2("sparse_ffn_layer_tokens_total"), 3);
  EXPECT_EQ(layer_2("sparse_ffn_layer_batches_total"), 2);
  EXPECT_DOUBLE_EQ(layer_2("sparse_ffn_layer_compute_seconds_total"), 0.004);
  EXPECT_EQ(Value(metrics_, "sparse_ffn_activation_sparsity_ratio_count"), 4);
  EXPECT_NEAR(Value(metrics_, "sparse_ffn_activation_sparsity_ratio_sum"), 3.4,
              1e-12);
  EXPECT_EQ(Value(metrics_,
                  "sparse_ffn_activation_sparsity_ratio_bucket{le=\"0.75\"}"),
            1);
  EXPECT_EQ(
      Value(metrics_, "sparse_ffn_activation_sparsity_ratio_bucket{le=\"1\"}"),
      4);
}

TEST_F(MetricsTest, RecentSparsityMovesTowardsWhatComes) {
  const std::string series =
      "sparse_ffn_layer_activation_sparsity_ratio{layer=\"5\"}";
  Record(5, {50}, 50, FfnPath::kSparse);
  EXPECT_DOUBLE_EQ(Value(metrics_, series), 0.5);
  Record(5, {0}, 0, FfnPath::kSparse);
  const double weight = std::exp(-1.0 / 1024);
  EXPECT_NEAR(Value(metrics_, series), 0.5 * weight + (1 - weight), 1e-12);
  for (int i = 0; i < 100; ++i) {
    Record(5, std::vector<uint32_t>(256, 10), 10, FfnPath::kSparse);
  }
  EXPECT_NEAR(Value(metrics_, series), 0.9, 1e-6);
}

TEST_F(MetricsTest, CountsWeightBytes) {
  constexpr double kRowBytes = kHiddenSize * 2;
  Record(2, {10}, 10, FfnPath::kSparse);
  Record(2, {10}, 10, FfnPath::kDense);
  const auto read = [this](const std::string& matrix) {
    return Value(metrics_, "sparse_ffn_weight_bytes_read_total{matrix=\"" +
                               matrix + "\"}");
  };
  const auto skipped = [this](const std::string& matrix) {
    return Value(metrics_, "sparse_ffn_weight_bytes_skipped_total{matrix=\"" +
                               matrix + "\"}");
  };
  EXPECT_EQ(read("gate"), 200 * kRowBytes);
  EXPECT_EQ(read("up"), 110 * kRowBytes);
  EXPECT_EQ(read("down"), 110 * kRowBytes);
  EXPECT_EQ(skipped("gate"), 0);
  EXPECT_EQ(skipped("up"), 90 * kRowBytes);
  EXPECT_EQ(skipped("down"), 90 * kRowBytes);
  EXPECT_EQ(Value(metrics_, "sparse_ffn_batches_total{path=\"sparse\"}"), 1);
  EXPECT_EQ(Value(metrics_, "sparse_ffn_batches_total{path=\"dense\"}"), 1);
  EXPECT_EQ(Value(metrics_, "sparse_ffn_batches_total{path=\"fused\"}"), 0);
}

TEST_F(MetricsTest, CountsBatchesLaunchedAhead) {
  Record(2, {10}, 10, FfnPath::kFused);
  BatchRecord batch;
  batch.layer = 2;
  batch.stats.path = FfnPath::kFused;
  batch.stats.launched_ahead = true;
  metrics_.RecordBatch(batch);
  metrics_.RecordBatch(batch);
  EXPECT_EQ(Value(metrics_, "sparse_ffn_batches_total{path=\"fused\"}"), 3);
  EXPECT_EQ(Value(metrics_, "sparse_ffn_batches_launched_ahead_total"), 2);
}

// As two batches, each with its own union and its own reads.
TEST_F(MetricsTest, CountsPassesAsBatches) {
  Record(2, {10, 30, 20}, 40, FfnPath::kFused, {{2, 40}, {1, 20}});
  constexpr double kRowBytes = kHiddenSize * 2;
  const auto value = [this](const std::string& series) {
    return Value(metrics_, "sparse_ffn_" + series);
  };
  EXPECT_EQ(value("batches_total{path=\"fused\"}"), 2);
  EXPECT_EQ(value("batch_tokens_count"), 2);
  EXPECT_EQ(value("batch_tokens_bucket{le=\"1\"}"), 1);
  EXPECT_EQ(value("batch_tokens_sum"), 3);
  EXPECT_EQ(value("layer_batches_total{layer=\"2\"}"), 2);
  EXPECT_EQ(value("layer_tokens_total{layer=\"2\"}"), 3);
  EXPECT_EQ(value("neurons_active_total{layer=\"2\"}"), 60);
  EXPECT_EQ(value("neurons_evaluated_total{layer=\"2\"}"), 300);
  EXPECT_EQ(value("union_neurons_active_total{layer=\"2\"}"), 60);
  EXPECT_EQ(value("union_neurons_evaluated_total{layer=\"2\"}"), 200);
  EXPECT_EQ(value("weight_bytes_read_total{matrix=\"gate\"}"), 200 * kRowBytes);
  EXPECT_EQ(value("weight_bytes_read_total{matrix=\"down\"}"), 60 * kRowBytes);
  EXPECT_EQ(value("weight_bytes_skipped_total{matrix=\"down\"}"),
            140 * kRowBytes);
  EXPECT_DOUBLE_EQ(value("layer_compute_seconds_total{layer=\"2\"}"), 0.002);
  EXPECT_EQ(value("stage_duration_seconds_count{stage=\"compute\"}"), 1);
  Record(2, {10, 30}, 30, FfnPath::kDense, {{1, 10}, {1, 30}});
  EXPECT_EQ(value("batches_total{path=\"dense\"}"), 2);
  EXPECT_EQ(value("weight_bytes_read_total{matrix=\"up\"}"), 260 * kRowBytes);
  EXPECT_EQ(value("weight_bytes_skipped_total{matrix=\"up\"}"),
            140 * kRowBytes);
}

TEST_F(MetricsTest, TimesStages) {
  Record(2, {10}, 10, FfnPath::kSparse);
  const auto stage = [this](const std::string& what, const std::string& name) {
    return Value(metrics_, "sparse_ffn_stage_duration_seconds_" + what +
                               "{stage=\"" + name + "\"}");
  };
  EXPECT_EQ(stage("count", "queue"), 2);
  EXPECT_DOUBLE_EQ(stage("sum", "queue"), 30e-6);
  EXPECT_EQ(stage("count", "gate"), 1);
  EXPECT_DOUBLE_EQ(stage("sum", "gate"), 30e-6);
  EXPECT_DOUBLE_EQ(stage("sum", "compute"), 2e-3);
  EXPECT_EQ(stage("count", "up"), 0);
  EXPECT_EQ(stage("count", "copy_in"), 0);
  EXPECT_EQ(Value(metrics_, "sparse_ffn_batch_tokens_sum"), 1);
}

TEST_F(MetricsTest, CountsRequests) {
  metrics_.RecordRequest(RpcMethod::kForward, absl::StatusCode::kOk,
                         std::chrono::microseconds(40));
  metrics_.RecordRequest(RpcMethod::kForward, absl::StatusCode::kOk,
                         std::chrono::hours(1));
  metrics_.RecordRequest(RpcMethod::kStreamForward,
                         absl::StatusCode::kInvalidArgument,
                         std::chrono::microseconds(1));
  metrics_.RecordRequest(RpcMethod::kStreamForward, absl::StatusCode::kDataLoss,
                         std::chrono::microseconds(1));
  metrics_.RecordRejected(RejectReason::kQueueFull);
  const std::string name = "sparse_ffn_request_duration_seconds_";
  EXPECT_EQ(Value(metrics_, name + "count{code=\"OK\",method=\"Forward\"}"), 2);
  EXPECT_EQ(Value(metrics_, name + "bucket{code=\"OK\",method=\"Forward\","
                                   "le=\"5e-06\"}"),
            0);
  EXPECT_EQ(Value(metrics_, name + "bucket{code=\"OK\",method=\"Forward\","
                                   "le=\"+Inf\"}"),
            2);
  EXPECT_EQ(Value(metrics_, name + "count{code=\"INVALID_ARGUMENT\",method="
                                   "\"StreamForward\"}"),
            1);
  EXPECT_EQ(Value(metrics_,
                  name + "count{code=\"INTERNAL\",method=\"StreamForward\"}"),
            1);
  EXPECT_EQ(Value(metrics_,
                  "sparse_ffn_requests_rejected_total{reason=\"queue_full\"}"),
            1);
}

// A query names a bucket by the text of its bound: 0.94 would be written as
// 0.9399999999999999.
TEST_F(MetricsTest, WritesBoundsAsShortNumbers) {
  const std::string text = metrics_.Text();
  const std::string label = "le=\"";
  int bounds = 0;
  for (size_t at = text.find(label); at != std::string::npos;
       at = text.find(label, at + 1)) {
    const size_t begin = at + label.size();
    const std::string bound = text.substr(begin, text.find('"', begin) - begin);
    EXPECT_LE(bound.size(), 7) << bound;
    ++bounds;
  }
  EXPECT_GT(bounds, 500);
}

TEST_F(MetricsTest, SamplesGaugesAndProcess) {
  EXPECT_EQ(Value(metrics_, "sparse_ffn_queued_tokens"), 0);
  metrics_.SetQueuedTokensSource([] { return size_t{17}; });
  metrics_.SetRequestsInFlightSource([] { return size_t{3}; });
  EXPECT_EQ(Value(metrics_, "sparse_ffn_queued_tokens"), 17);
  EXPECT_EQ(Value(metrics_, "sparse_ffn_requests_in_flight"), 3);
  metrics_.SetQueuedTokensSource(nullptr);
  EXPECT_EQ(Value(metrics_, "sparse_ffn_queued_tokens"), 0);
  EXPECT_GT(Value(metrics_, "process_resident_memory_bytes"), 1 << 20);
  EXPECT_GT(Value(metrics_, "process_open_fds"), 2);
  const double now = std::chrono::duration<double>(
                         std::chrono::system_clock::now().time_since_epoch())
                         .count();
  EXPECT_NEAR(Value(metrics_, "process_start_time_seconds"), now, 3600);
  EXPECT_THAT(metrics_.Text(),
              HasSubstr("# TYPE process_cpu_seconds_total counter"));
}

TEST_F(MetricsTest, TellsOfABusyPort) {
  absl::StatusOr<int> port = metrics_.Expose("127.0.0.1:0");
  ASSERT_TRUE(port.ok()) << port.status();
  Metrics other("1");
  const std::string address = "127.0.0.1:" + std::to_string(*port);
  absl::StatusOr<int> busy = other.Expose(address);
  ASSERT_FALSE(busy.ok());
  EXPECT_TRUE(absl::IsUnavailable(busy.status()));
  EXPECT_THAT(std::string(busy.status().message()), HasSubstr(address));
}

TEST_F(MetricsTest, RecordsFromManyThreads) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([this] {
      for (int j = 0; j < 200; ++j) Record(2, {10}, 10, FfnPath::kSparse);
    });
  }
  for (int j = 0; j < 20; ++j) {
    EXPECT_LE(Value(metrics_, "sparse_ffn_batch_tokens_count"), 800);
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Value(metrics_, "sparse_ffn_neurons_active_total{layer=\"2\"}"),
            8000);
}

}  // namespace
}  // namespace sparse_ffn
