// OpenModel and LoadLayers, into a backend that remembers what it was given.
#include "server/load_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/checkpoint/weights_hash.h"
#include "tests/unit/checkpoint_files.h"

namespace sparse_ffn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<float> ToFloats(ConstMatrix matrix) {
  std::vector<float> values(matrix.rows * matrix.cols);
  Convert(matrix,
          {values.data(), matrix.rows, matrix.cols, DataType::kFloat32});
  return values;
}

class RecordingBackend final : public FfnBackend {
 public:
  struct Layer {
    DataType dtype;
    std::vector<float> gate_proj;
    std::vector<float> up_proj;
    std::vector<float> down_proj;
    size_t rows;
    size_t cols;
  };

  const char* name() const override { return "recording"; }
  const std::string& device_name() const override { return device_name_; }
  size_t weights_bytes() const override { return bytes_; }
  absl::Status AddLayer(int layer, const FfnWeights& weights) override {
    if (layer == refused_layer) return absl::ResourceExhaustedError("full");
    bytes_ += 3 * weights.gate_proj.bytes();
    layers.emplace(layer,
                   Layer{weights.down_proj.dtype, ToFloats(weights.gate_proj),
                         ToFloats(weights.up_proj), ToFloats(weights.down_proj),
                         weights.down_proj.rows, weights.down_proj.cols});
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<FfnLane>> NewLane() override {
    return absl::UnavailableError("records only");
  }

  int refused_layer = -1;
  std::map<int, Layer> layers;

 private:
  std::string device_name_ = "memory";
  size_t bytes_ = 0;
};

constexpr size_t kHidden = 70;
constexpr size_t kNeurons = 37;

class LoadModelTest : public testing::Test {
 protected:
  LoadModelTest() { options_.folder = folder_.path(); }

  void WriteConfig(const std::string& more, size_t hidden = kHidden,
                   size_t neurons = kNeurons) {
    WriteBytes(folder_.File("config.json"),
               ConfigJson(hidden, neurons, 8, more));
  }
  void WriteLayers(const std::vector<int>& layers, size_t hidden = kHidden,
                   size_t neurons = kNeurons) {
    std::vector<RawTensor> tensors;
    for (const int layer : layers) {
      for (RawTensor& tensor : LayerOf(layer, hidden, neurons)) {
        tensors.push_back(std::move(tensor));
      }
    }
    WriteTensors(tensors);
  }
  void WriteTensors(const std::vector<RawTensor>& tensors) {
    WriteBytes(folder_.File("model.safetensors"), SafetensorsBytes(tensors));
  }
  absl::StatusOr<LoadedModel> Load(RecordingBackend& backend) {
    absl::StatusOr<ModelPlan> plan = OpenModel(options_);
    if (!plan.ok()) return plan.status();
    return LoadLayers(*plan, backend, nullptr);
  }
  std::string Hash() {
    RecordingBackend backend;
    absl::StatusOr<LoadedModel> result = Load(backend);
    return result.ok() ? result->weights_hash : result.status().ToString();
  }
  std::string OpenError() {
    return std::string(OpenModel(options_).status().message());
  }

  const TempFolder folder_;
  ModelOptions options_;
};

void ExpectLayer(const RecordingBackend& backend, int layer, size_t hidden,
                 size_t neurons) {
  const auto found = backend.layers.find(layer);
  ASSERT_NE(found, backend.layers.end());
  const RecordingBackend::Layer& got = found->second;
  ASSERT_EQ(got.rows, neurons);
  ASSERT_EQ(got.cols, hidden);
  size_t wrong = 0;
  for (size_t j = 0; j < neurons; ++j) {
    for (size_t i = 0; i < hidden; ++i) {
      const size_t at = j * hidden + i;
      wrong += got.gate_proj[at] != FfnElement(layer, "gate_proj", j, i);
      wrong += got.up_proj[at] != FfnElement(layer, "up_proj", j, i);
      wrong += got.down_proj[at] != FfnElement(layer, "down_proj", i, j);
    }
  }
  EXPECT_EQ(wrong, 0) << "elements of layer " << layer;
}

TEST_F(LoadModelTest, GivesTheBackendNeuronMajorMatrices) {
  WriteConfig(R"("hidden_act": "relu")");
  WriteLayers({0, 3});
  absl::StatusOr<ModelPlan> plan = OpenModel(options_);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->config.hidden_size, kHidden);
  EXPECT_EQ(plan->config.intermediate_size, kNeurons);
  EXPECT_EQ(plan->config.num_layers, 2);
  EXPECT_EQ(plan->config.weights_dtype, DataType::kFloat32);
  EXPECT_EQ(plan->config.activation, Activation::kRelu);
  EXPECT_EQ(plan->config.threshold, 0);
  EXPECT_EQ(plan->name, plan->checkpoint.name());

  RecordingBackend backend;
  std::vector<size_t> done;
  absl::StatusOr<LoadedModel> result =
      LoadLayers(*plan, backend, [&done](const LoadProgress& progress) {
        EXPECT_EQ(progress.layers_total, 2);
        EXPECT_EQ(progress.bytes_read,
                  progress.layers_done * 3 * kHidden * kNeurons * 4);
        done.push_back(progress.layers_done);
      });
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(done, ElementsAre(1, 2));
  EXPECT_EQ(result->bytes_on_device, 6 * kHidden * kNeurons * 4);
  EXPECT_EQ(result->bytes_read, 6 * kHidden * kNeurons * 4);
  EXPECT_THAT(result->weights_hash, testing::MatchesRegex("[0-9a-f]{32}"));
  ExpectLayer(backend, 0, kHidden, kNeurons);
  ExpectLayer(backend, 3, kHidden, kNeurons);
}

TEST_F(LoadModelTest, ConvertsOnRequest) {
  WriteConfig(R"("hidden_act": "relu")");
  WriteLayers({1});
  for (const DataType dtype :
       {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16}) {
    options_.weights_dtype = dtype;
    RecordingBackend backend;
    absl::StatusOr<LoadedModel> result = Load(backend);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(backend.layers.at(1).dtype, dtype);
    ExpectLayer(backend, 1, kHidden, kNeurons);
  }
}

TEST_F(LoadModelTest, SeveralBlocksAndWideRowsArriveWhole) {
  // Blocks of 4 MiB: several of each matrix, the last one shorter.
  WriteConfig(R"("hidden_act": "relu")", 1100, 2001);
  WriteLayers({0}, 1100, 2001);
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(folder_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  for (const DataType dtype : {DataType::kFloat32, DataType::kBFloat16}) {
    options_.weights_dtype = dtype;
    RecordingBackend backend;
    absl::StatusOr<LoadedModel> result = Load(backend);
    ASSERT_TRUE(result.ok()) << result.status();
    ExpectLayer(backend, 0, 1100, 2001);
    EXPECT_EQ(*HashWeights(*checkpoint, {0}, 2), result->weights_hash);
  }
}

TEST_F(LoadModelTest, AValueTooLargeForTheTypeIsAnErrorThatNamesTheTensor) {
  WriteConfig(R"("hidden_act": "relu")");
  for (const size_t which : {size_t{0}, size_t{2}}) {
    std::vector<RawTensor> tensors = LayerOf(0, kHidden, kNeurons);
    const float huge = 1e6;
    std::memcpy(tensors[which].data.data() + 400, &huge, sizeof(huge));
    WriteTensors(tensors);
    options_.weights_dtype = DataType::kFloat16;
    RecordingBackend backend;
    const absl::Status status = Load(backend).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(tensors[which].name));
    EXPECT_THAT(std::string(status.message()), HasSubstr("float16"));
    options_.weights_dtype = DataType::kBFloat16;
    EXPECT_TRUE(Load(backend).ok());
  }
}

TEST_F(LoadModelTest, TheHashSeesWeightsAndLayersButNotShardsOrTypes) {
  WriteConfig(R"("hidden_act": "relu")");
  WriteLayers({0, 1});
  const std::string hash = Hash();
  EXPECT_THAT(hash, testing::MatchesRegex("[0-9a-f]{32}"));
  EXPECT_EQ(hash, Hash());
  options_.weights_dtype = DataType::kBFloat16;
  EXPECT_EQ(hash, Hash());
  options_.layers = {{0, 0}};
  EXPECT_NE(hash, Hash());
  options_.layers.clear();

  // Another order in the file, and other tensors between.
  std::vector<RawTensor> tensors = LayerOf(1, kHidden, kNeurons);
  tensors.push_back({"lm_head.weight", "F32", {1}, "abcd"});
  for (RawTensor& tensor : LayerOf(0, kHidden, kNeurons)) {
    tensors.insert(tensors.begin() + 1, std::move(tensor));
  }
  WriteTensors(tensors);
  EXPECT_EQ(hash, Hash());

  // One bit of one weight.
  tensors[0].data[tensors[0].data.size() - 4] ^= 1;
  WriteTensors(tensors);
  EXPECT_NE(hash, Hash());

  // In shards.
  unlink(folder_.File("model.safetensors").c_str());
  std::string index = "{\"weight_map\":{\"lm_head.weight\":\"x\"";
  for (const int layer : {0, 1}) {
    const std::string shard = absl::StrCat("shard-", layer);
    const std::vector<RawTensor> part = LayerOf(layer, kHidden, kNeurons);
    WriteBytes(folder_.File(shard), SafetensorsBytes(part));
    for (const RawTensor& tensor : part) {
      absl::StrAppend(&index, ",\"", tensor.name, "\":\"", shard, "\"");
    }
  }
  WriteBytes(folder_.File("model.safetensors.index.json"), index + "}}");
  EXPECT_EQ(hash, Hash());
}

TEST_F(LoadModelTest, TheHashCanBeHadWithoutLoading) {
  WriteConfig(R"("hidden_act": "relu")");
  WriteLayers({0, 3});
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(folder_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const std::string hash = Hash();
  for (const size_t workers : {0, 1, 3}) {
    EXPECT_EQ(*HashWeights(*checkpoint, {0, 3}, workers), hash);
  }
  EXPECT_NE(*HashWeights(*checkpoint, {3, 0}, 2), hash);
  EXPECT_TRUE(absl::IsNotFound(HashWeights(*checkpoint, {1}, 2).status()));
  options_.layers = {{3, 3}};
  EXPECT_EQ(*HashWeights(*checkpoint, {3}, 2), Hash());
  ASSERT_EQ(truncate(folder_.File("model.safetensors").c_str(), 5000), 0);
  EXPECT_TRUE(absl::IsDataLoss(HashWeights(*checkpoint, {0}, 2).status()));
}

TEST_F(LoadModelTest, TakesOnlyTheLayersAskedFor) {
  WriteConfig(R"("hidden_act": "relu")");
  WriteLayers({0, 1, 2, 5});
  options_.layers = {{1, 2}, {5, 5}};
  absl::StatusOr<ModelPlan> plan = OpenModel(options_);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->layers, ElementsAre(1, 2, 5));
  EXPECT_EQ(plan->config.num_layers, 3);
  options_.layers = {{2, 999'999'999}};
  EXPECT_TRUE(absl::IsNotFound(OpenModel(options_).status()));
  EXPECT_THAT(OpenError(), HasSubstr("expected layer 3, found 4 layers, 0-2, "
                                     "5"));
}

TEST_F(LoadModelTest, WhatTheBackendRefusesIsReturned) {
  WriteConfig(R"("hidden_act": "relu")");
  WriteLayers({0, 1});
  RecordingBackend backend;
  backend.refused_layer = 1;
  EXPECT_TRUE(absl::IsResourceExhausted(Load(backend).status()));
  EXPECT_EQ(backend.layers.size(), 1);
}

TEST_F(LoadModelTest, AFileThatShrinksMeanwhileIsAnError) {
  WriteConfig(R"("hidden_act": "relu")");
  WriteLayers({0, 1});
  absl::StatusOr<ModelPlan> plan = OpenModel(options_);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(truncate(folder_.File("model.safetensors").c_str(), 5000), 0);
  RecordingBackend backend;
  const absl::Status status = LoadLayers(*plan, backend, nullptr).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("model.safetensors"));
}

TEST_F(LoadModelTest, ActivationAndThresholdComeFromConfigOrOptions) {
  WriteLayers({0});
  const auto expect = [this](Activation activation, float threshold) {
    absl::StatusOr<ModelPlan> plan = OpenModel(options_);
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->config.activation, activation);
    EXPECT_EQ(plan->config.threshold, threshold);
  };
  WriteConfig(R"("hidden_act": "fatrelu", "hidden_act_param": 0.01)");
  expect(Activation::kFatRelu, 0.01F);
  options_.threshold = 0.25;
  expect(Activation::kFatRelu, 0.25F);
  options_.threshold = 0;
  expect(Activation::kFatRelu, 0);
  options_.threshold.reset();
  options_.activation = Activation::kDRelu;
  expect(Activation::kDRelu, 0);
  options_.threshold = 0;
  expect(Activation::kDRelu, 0);

  WriteConfig(R"("hidden_act": "silu")");
  options_.activation = Activation::kFatRelu;
  options_.threshold = 0.5;
  expect(Activation::kFatRelu, 0.5F);
}

TEST_F(LoadModelTest, ActivationsThatAreNotSparseAreRefused) {
  WriteLayers({0});
  for (const char* name : {"silu", "gelu", "gelu_new", "ReLU", "relu2"}) {
    WriteConfig(absl::StrCat("\"hidden_act\": \"", name, "\""));
    EXPECT_THAT(OpenError(), HasSubstr(absl::StrCat("found \"", name, "\"")));
    EXPECT_THAT(OpenError(), HasSubstr("config.json"));
  }
  WriteConfig(R"("x": 1)");
  EXPECT_THAT(OpenError(), HasSubstr("found none"));
}

TEST_F(LoadModelTest, BadThresholdsAreRefused) {
  WriteLayers({0});
  WriteConfig(R"("hidden_act": "fatrelu")");
  EXPECT_THAT(OpenError(), HasSubstr("expected the threshold of fatrelu"));
  WriteConfig(R"("hidden_act": "fatrelu", "hidden_act_param": 1e300)");
  EXPECT_THAT(OpenError(), HasSubstr("finite float32 >= 0"));
  for (const double threshold :
       {-0.01, -1e-300, 1e300, std::numeric_limits<double>::infinity(),
        std::nan("")}) {
    options_.threshold = threshold;
    EXPECT_THAT(OpenError(), HasSubstr("finite float32 >= 0"));
  }
  options_.threshold = 0.01;
  for (const char* name : {"relu", "drelu"}) {
    WriteConfig(absl::StrCat("\"hidden_act\": \"", name, "\""));
    EXPECT_THAT(OpenError(), HasSubstr("expected none or 0"));
  }
}

}  // namespace
}  // namespace sparse_ffn
