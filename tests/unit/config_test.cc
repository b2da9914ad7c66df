#include "server/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "server/logging.h"

namespace sparse_ffn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

ServerConfig Parse(std::vector<std::string> args) {
  absl::StatusOr<CommandLine> line = ParseCommandLine(std::move(args));
  EXPECT_TRUE(line.ok()) << line.status();
  if (!line.ok()) return {};
  EXPECT_FALSE(line->print.has_value());
  return line->config;
}

TEST(ConfigTest, HasDefaults) {
  const ServerConfig config = Parse({"--model", "dir"});
  EXPECT_EQ(config.model.folder, "dir");
  EXPECT_TRUE(config.model.layers.empty());
  EXPECT_FALSE(config.model.activation.has_value());
  EXPECT_FALSE(config.model.threshold.has_value());
  EXPECT_FALSE(config.model.weights_dtype.has_value());
  EXPECT_THAT(config.listen, ElementsAre("127.0.0.1:50051"));
  EXPECT_EQ(config.metrics, "127.0.0.1:9090");
  EXPECT_EQ(config.backend, BackendChoice::kAuto);
  EXPECT_EQ(config.max_batch_tokens, 256);
  EXPECT_EQ(config.max_queued_tokens, 4096);
  EXPECT_EQ(config.path_costs, "");
  EXPECT_EQ(config.measure_seconds, 2);
  EXPECT_EQ(config.launch_ahead_us, 1000U);
  EXPECT_FALSE(config.deterministic);
}

TEST(ConfigTest, MayBeDeterministic) {
  EXPECT_TRUE(Parse({"--model", "dir", "--deterministic"}).deterministic);
  EXPECT_TRUE(
      Parse({"--model", "dir", "--deterministic", "--measure-seconds", "1"})
          .deterministic);
}

TEST(ConfigTest, ReadsEveryFlag) {
  const ServerConfig config = Parse({"--model",
                                     "dir",
                                     "--listen",
                                     "0.0.0.0:1",
                                     "--listen",
                                     "unix:/run/s",
                                     "--listen",
                                     "[::1]:7",
                                     "--metrics",
                                     "localhost:0",
                                     "--backend",
                                     "cuda",
                                     "--device",
                                     "2",
                                     "--threads",
                                     "3",
                                     "--max-batch-tokens",
                                     "16",
                                     "--max-queued-tokens",
                                     "99",
                                     "--layers",
                                     "0-3,8",
                                     "--activation",
                                     "fatrelu",
                                     "--threshold",
                                     "0.25",
                                     "--weights-dtype",
                                     "float16",
                                     "--drain-seconds",
                                     "1.5",
                                     "--path-costs",
                                     "/var/costs.json",
                                     "--measure-seconds",
                                     "0.5",
                                     "--launch-ahead-us",
                                     "50"});
  EXPECT_THAT(config.listen,
              ElementsAre("0.0.0.0:1", "unix:/run/s", "[::1]:7"));
  EXPECT_EQ(config.metrics, "localhost:0");
  EXPECT_EQ(config.backend, BackendChoice::kCuda);
  EXPECT_EQ(config.device, 2);
  EXPECT_EQ(config.threads, 3);
  EXPECT_EQ(config.max_batch_tokens, 16);
  EXPECT_EQ(config.max_queued_tokens, 99);
  ASSERT_EQ(config.model.layers.size(), 2);
  EXPECT_EQ(config.model.layers[0].last, 3);
  EXPECT_EQ(config.model.layers[1].first, 8);
  EXPECT_EQ(config.model.activation, Activation::kFatRelu);
  EXPECT_EQ(config.model.threshold, 0.25);
  EXPECT_EQ(config.model.weights_dtype, DataType::kFloat16);
  EXPECT_EQ(config.drain_seconds, 1.5);
  EXPECT_EQ(config.path_costs, "/var/costs.json");
  EXPECT_EQ(config.measure_seconds, 0.5);
  EXPECT_EQ(config.launch_ahead_us, 50U);
}

TEST(ConfigTest, MetricsMayBeOff) {
  EXPECT_EQ(Parse({"--model", "dir", "--metrics", ""}).metrics, "");
  EXPECT_EQ(Parse({"--model", "dir", "--metrics="}).metrics, "");
}

TEST(ConfigTest, HelpSaysUnitsAndDefaults) {
  absl::StatusOr<CommandLine> line = ParseCommandLine({"--help"});
  ASSERT_TRUE(line.ok());
  ASSERT_TRUE(line->print.has_value());
  for (const char* text : {"--model",
                           "--listen",
                           "--metrics",
                           "--backend",
                           "--device",
                           "--max-batch-tokens TOKENS",
                           "256",
                           "--max-queued-tokens TOKENS",
                           "4096",
                           "--threads",
                           "--layers",
                           "--activation",
                           "--threshold",
                           "--weights-dtype",
                           "--drain-seconds SECONDS",
                           "127.0.0.1:50051",
                           "127.0.0.1:9090",
                           "--path-costs FILE",
                           "--measure-seconds SECONDS",
                           "--launch-ahead-us MICROSECONDS",
                           "--deterministic"}) {
    EXPECT_THAT(*line->print, HasSubstr(text));
  }
}

TEST(ConfigTest, PrintsItsVersion) {
  absl::StatusOr<CommandLine> line = ParseCommandLine({"--version"});
  ASSERT_TRUE(line.ok());
  EXPECT_EQ(line->print, "sparse-ffn-server " SPARSE_FFN_VERSION "\n");
}

struct BadLine {
  std::vector<std::string> args;
  const char* message;  // A part of it.
};

class BadLineTest : public testing::TestWithParam<BadLine> {};

TEST_P(BadLineTest, IsRefusedInOneSentence) {
  absl::StatusOr<CommandLine> line = ParseCommandLine(GetParam().args);
  ASSERT_FALSE(line.ok());
  const std::string message(line.status().message());
  EXPECT_THAT(message, HasSubstr(GetParam().message));
  EXPECT_THAT(message, Not(HasSubstr("\n")));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadLineTest,
    testing::Values(
        BadLine{{}, "--model"}, BadLine{{"--model"}, "--model"},
        BadLine{{"--model", "m", "--bogus"}, "--bogus"},
        BadLine{{"--model", "m", "extra"}, "extra"},
        BadLine{{"--model", "m", "--backend", "tpu"}, "tpu"},
        BadLine{{"--model", "m", "--device", "-1"}, "--device"},
        BadLine{{"--model", "m", "--device", "x"}, "--device"},
        BadLine{{"--model", "m", "--threads", "1.5"}, "--threads"},
        BadLine{{"--model", "m", "--max-batch-tokens", "0"}, "max-batch"},
        BadLine{{"--model", "m", "--max-batch-tokens", "-3"}, "max-batch"},
        BadLine{{"--model", "m", "--max-batch-tokens", "70000"}, "max-batch"},
        BadLine{{"--model", "m", "--max-queued-tokens", "255"}, "max-queued"},
        BadLine{{"--model", "m", "--deterministic", "--path-costs", "f"},
                "--path-costs: with --deterministic"},
        BadLine{{"--model", "m", "--deterministic", "yes"}, "yes"},
        BadLine{{"--model", "m", "--launch-ahead-us", "-1"}, "launch-ahead"},
        BadLine{{"--model", "m", "--launch-ahead-us", "1000001"}, "1000001"},
        BadLine{{"--model", "m", "--listen", "nowhere"}, "nowhere"},
        BadLine{{"--model", "m", "--listen", "host:70000"}, "host:70000"},
        BadLine{{"--model", "m", "--listen", "host:"}, "host:"},
        BadLine{{"--model", "m", "--listen", "unix:"}, "unix:"},
        BadLine{{"--model", "m", "--metrics", "unix:/x"}, "--metrics"},
        BadLine{{"--model", "m", "--metrics", "9090"}, "--metrics"},
        BadLine{{"--model", "m", "--layers", "5-1"}, "--layers"},
        BadLine{{"--model", "m", "--layers", ""},
                "--layers: expected a value, found \"\""},
        BadLine{{"--model", "m", "--layers="}, "--layers"},
        BadLine{{"--model", "m", "--activation", "silu"}, "silu"},
        BadLine{{"--model", "m", "--activation", ""}, "--activation"},
        BadLine{{"--model", "m", "--threshold", ""}, "--threshold"},
        BadLine{{"--model", "m", "--threshold", "-1"}, "--threshold"},
        BadLine{{"--model", "m", "--threshold", "nan"}, "--threshold"},
        BadLine{{"--model", "m", "--weights-dtype", "int8"}, "int8"},
        BadLine{{"--model", "m", "--weights-dtype", ""}, "--weights-dtype"},
        BadLine{{"--model", "m", "--drain-seconds", "-1"},
                "--drain-seconds: -1 is not a number of seconds from 0 to "
                "86400"},
        BadLine{{"--model", "m", "--drain-seconds", "inf"}, "inf is not"},
        BadLine{{"--model", "m", "--drain-seconds", "-inf"}, "-inf is not"},
        BadLine{{"--model", "m", "--drain-seconds", "86401"}, "86401"},
        BadLine{{"--model", "m", "--drain-seconds", ""}, "drain-seconds"},
        BadLine{{"--model", "m", "--path-costs", ""},
                "--path-costs: expected a value"},
        BadLine{{"--model", "m", "--path-costs="}, "--path-costs"},
        BadLine{{"--model", "m", "--measure-seconds", "-1"},
                "--measure-seconds: -1 is not a number of seconds from 0 to "
                "60"},
        BadLine{{"--model", "m", "--measure-seconds", "61"}, "61 is not"},
        BadLine{{"--model", "m", "--measure-seconds", "nan"}, "nan is not"},
        BadLine{{"--model", ""}, "--model: expected a value"},
        BadLine{{""}, "the first argument"},
        BadLine{{"--model", "m", "--drain-seconds", "nan"}, "nan is not"}));

TEST(LoggingTest, QuotesWhatIsNotPlain) {
  EXPECT_EQ(FormatLogRecord("model loaded", {{"layers", 4},
                                             {"path", "/a/b-1.2"},
                                             {"empty", ""},
                                             {"text", "say \"a=b\"\n\\"}}),
            "msg=\"model loaded\" layers=4 path=/a/b-1.2 empty=\"\" "
            "text=\"say \\\"a=b\\\"\\x0a\\\\\"");
}

}  // namespace
}  // namespace sparse_ffn
