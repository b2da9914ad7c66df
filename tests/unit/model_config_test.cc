// config.json: what is read, and what is refused by name.
#include "server/checkpoint/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <string>

#include "tests/unit/checkpoint_files.h"

namespace sparse_ffn {
namespace {

using testing::HasSubstr;

class ModelConfigTest : public testing::Test {
 protected:
  absl::StatusOr<ModelConfig> Read(const std::string& text) {
    WriteBytes(path_, text);
    return ReadModelConfig(path_);
  }

  const TempFolder folder_;
  const std::string path_ = folder_.File("config.json");
};

TEST_F(ModelConfigTest, ReadsWhatItNeedsAndSkipsTheRest) {
  absl::StatusOr<ModelConfig> config = Read(R"({
    "architectures": ["LlamaForCausalLM"], "bos_token_id": -1,
    "rope_scaling": {"hidden_size": 7, "factor": [1.5, {"hidden_act": 3}]},
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "hidden_act": "fatrelu", "hidden_act_param": 0.01, "rms_norm_eps": 1e-05})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->hidden_size, 4096);
  EXPECT_EQ(config->intermediate_size, 11008);
  EXPECT_EQ(config->num_hidden_layers, 32);
  EXPECT_EQ(config->hidden_act, "fatrelu");
  EXPECT_EQ(config->hidden_act_param, 0.01);
}

TEST_F(ModelConfigTest, ActivationMayBeAbsentOrHaveItsOtherName) {
  EXPECT_EQ(Read(ConfigJson(8, 16, 2, R"("x": 1)"))->hidden_act, "");
  EXPECT_EQ(
      Read(ConfigJson(8, 16, 2, R"("hidden_activation": "relu")"))->hidden_act,
      "relu");
  const auto null_param = Read(ConfigJson(
      8, 16, 2, R"("hidden_act": "relu", "hidden_act_param": null)"));
  ASSERT_TRUE(null_param.ok()) << null_param.status();
  EXPECT_FALSE(null_param->hidden_act_param.has_value());
}

TEST_F(ModelConfigTest, BadEntriesAreNamed) {
  const struct {
    std::string text;
    const char* message;
  } kCases[] = {
      {"", "expected JSON"},
      {"[]", "expected an object, found an array"},
      {"3", "expected an object, found 3"},
      {"{}", "hidden_size: expected an integer, found no such entry"},
      {"{\"hidden_size\": 1", "expected JSON"},
      {std::string(40, '['), "nesting depth"},
      {"{\"a\":" + std::string(40, '['), "nesting depth"},
      {"{\"a\": \"\xff\"}", "expected JSON"},
      {R"({"hidden_size": 8, "hidden_size": 8})", "hidden_size: expected one"},
      {R"({"hidden_size": "8"})", "hidden_size: expected an integer"},
      {R"({"hidden_size": 8.0})", "hidden_size: expected an integer"},
      {R"({"hidden_size": -8})", "found -8"},
      {R"({"hidden_size": 0})", "found 0"},
      {R"({"hidden_size": 4194305})", "from 1 to 4194304, found 4194305"},
      {R"({"hidden_size": 18446744073709551615})", "hidden_size: expected"},
      {R"({"hidden_size": [8]})", "hidden_size: expected a plain value"},
      {R"({"hidden_size": null})", "found null"},
      {R"({"num_hidden_layers": 10001})", "num_hidden_layers: expected"},
      {R"({"intermediate_size": true})", "intermediate_size: expected"},
      {R"({"hidden_act": 3})", "hidden_act: expected a string, found 3"},
      {R"({"hidden_act": {"name": "relu"}})", "hidden_act: expected a plain"},
      {R"({"hidden_act_param": -0.5})", "finite number >= 0, found -0.5"},
      {R"({"hidden_act_param": "0.01"})", "found \"0.01\""},
      {R"({"hidden_act_param": true})", "found true"},
      {R"({"hidden_act_param": [0.01]})", "hidden_act_param: expected a plain"},
      {R"({"hidden_act_param": NaN})", "expected JSON"},
      {R"({"hidden_act_param": 1e400})", "expected JSON"},
      {R"({"hidden_act_param": Infinity})", "expected JSON"},
  };
  for (const auto& [text, message] : kCases) {
    SCOPED_TRACE(text);
    const absl::Status status = Read(text).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

TEST_F(ModelConfigTest, AnOversizeFileOrAFifoIsAnErrorAtOnce) {
  EXPECT_THAT(std::string(Read(std::string(5 << 20, ' ')).status().message()),
              HasSubstr("expected at most 4194304 bytes"));
  const std::string fifo = folder_.File("fifo");
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_THAT(std::string(ReadModelConfig(fifo).status().message()),
              HasSubstr("found a FIFO"));
  EXPECT_TRUE(
      absl::IsNotFound(ReadModelConfig(folder_.File("absent")).status()));
}

TEST_F(ModelConfigTest, WhatWasWrittenComesBack) {
  ModelConfig config;
  config.hidden_size = 1536;
  config.intermediate_size = 3840;
  config.num_hidden_layers = 52;
  config.hidden_act = "fat\"relu";
  config.hidden_act_param = 0.1;
  ASSERT_EQ(WriteModelConfig(config, "bfloat16", path_), absl::OkStatus());
  absl::StatusOr<ModelConfig> read = ReadModelConfig(path_);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->hidden_size, config.hidden_size);
  EXPECT_EQ(read->intermediate_size, config.intermediate_size);
  EXPECT_EQ(read->num_hidden_layers, config.num_hidden_layers);
  EXPECT_EQ(read->hidden_act, config.hidden_act);
  EXPECT_EQ(read->hidden_act_param, config.hidden_act_param);
  EXPECT_THAT(ReadBytes(path_), HasSubstr(R"("torch_dtype": "bfloat16")"));
}

}  // namespace
}  // namespace sparse_ffn
