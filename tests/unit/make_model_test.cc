// Made checkpoints: their bytes, their density, and replays that hit every
// neuron, by float64 arithmetic and through a backend.
#include "client/make_model/make_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/counter_random.h"
#include "client/make_model/gate_distribution.h"
#include "client/make_model/gate_solver.h"
#include "client/npy.h"
#include "kernels/ffn_backend.h"
#include "server/load_model.h"
#include "tests/unit/checkpoint_files.h"

namespace sparse_ffn {
namespace {

using testing::HasSubstr;

constexpr uint64_t kSeed = 20260107;

std::vector<double> ToDoubles(ConstMatrix matrix) {
  std::vector<float> values(matrix.rows * matrix.cols);
  Convert(matrix,
          {values.data(), matrix.rows, matrix.cols, DataType::kFloat32});
  return {values.begin(), values.end()};
}

// Which neurons of a layer are active for each row of inputs.npy.
std::vector<bool> MaskOf(const std::string& folder, int layer) {
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(folder);
  absl::StatusOr<NpyArray> inputs = ReadNpy(folder + "/inputs.npy");
  if (!checkpoint.ok() || !inputs.ok()) return {};
  const LayerTensors tensors = *checkpoint->Layer(layer);
  const std::vector<double> gate = ToDoubles(tensors.gate_proj);
  const std::vector<double> x = ToDoubles(inputs->view());
  const double threshold = checkpoint->config().hidden_act_param.value_or(0);
  const size_t hidden = inputs->cols;
  std::vector<bool> mask;
  for (size_t row = 0; row < inputs->rows; ++row) {
    for (size_t neuron = 0; neuron < tensors.gate_proj.rows; ++neuron) {
      double score = 0;
      for (size_t i = 0; i < hidden; ++i) {
        score += gate[neuron * hidden + i] * x[row * hidden + i];
      }
      mask.push_back(threshold > 0 ? score >= threshold : score > 0);
    }
  }
  return mask;
}

double ShareOf(const std::vector<bool>& mask) {
  double active = 0;
  for (const bool bit : mask) active += bit ? 1 : 0;
  return active / static_cast<double>(mask.size());
}

class MakeModelTest : public testing::Test {
 protected:
  MakeModelTest() {
    RecordProperty("seed", std::to_string(kSeed));
    spec_.hidden_size = 256;
    spec_.intermediate_size = 601;
    spec_.num_layers = 2;
    spec_.seed = kSeed;
    spec_.out = folder_.File("model");
  }

  // Rows of which each element is active with probability 0.15, in two sizes.
  std::vector<float> WriteActivations(size_t rows) {
    std::vector<float> values(rows * spec_.intermediate_size);
    const CounterRandom random(kSeed);
    for (size_t i = 0; i < values.size(); ++i) {
      const float draw = random.Uniform(i);
      values[i] = draw < 0.1F ? draw : draw < 0.15F ? 1e-4F : 0;
    }
    spec_.replay = folder_.File("activations.npy");
    EXPECT_EQ(WriteNpy({values.data(), rows, spec_.intermediate_size,
                        DataType::kFloat32},
                       spec_.replay),
              absl::OkStatus());
    return values;
  }
  std::string Error() {
    return std::string(MakeModel(spec_, nullptr).message());
  }
  std::vector<std::string> Names() {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(spec_.out)) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }
  std::string Bytes(const std::string& name) {
    return ReadBytes(spec_.out + "/" + name);
  }

  const TempFolder folder_;
  ModelSpec spec_;
};

std::vector<bool> MaskOf(const std::vector<float>& activations) {
  std::vector<bool> mask;
  for (const float value : activations) mask.push_back(value != 0);
  return mask;
}

// Active neurons of each input row, counted by the CPU backend.
std::vector<uint32_t> CountsByBackend(const std::string& folder, int layer) {
  ModelOptions options;
  options.folder = folder;
  absl::StatusOr<ModelPlan> plan = OpenModel(options);
  absl::StatusOr<NpyArray> inputs = ReadNpy(folder + "/inputs.npy");
  if (!plan.ok() || !inputs.ok()) return {};
  plan->config.max_batch_tokens = inputs->rows;
  absl::StatusOr<std::unique_ptr<FfnBackend>> backend =
      NewCpuBackend(plan->config, 2);
  if (!backend.ok() || !LoadLayers(*plan, **backend, nullptr).ok()) return {};
  absl::StatusOr<std::unique_ptr<FfnLane>> lane = (*backend)->NewLane();
  if (!lane.ok()) return {};
  Convert(inputs->view(), (*lane)->input(inputs->rows));
  absl::StatusOr<FfnResult> result =
      (*lane)->Run(layer, inputs->rows, Execution::kSparse);
  if (!result.ok()) return {};
  return {result->stats.active_neurons.begin(),
          result->stats.active_neurons.end()};
}

std::vector<uint32_t> CountsOf(const std::vector<float>& activations,
                               size_t cols) {
  std::vector<uint32_t> counts(activations.size() / cols, 0);
  for (size_t i = 0; i < activations.size(); ++i) {
    counts[i / cols] += activations[i] != 0 ? 1 : 0;
  }
  return counts;
}

TEST_F(MakeModelTest, SameSeedSameBytes) {
  ASSERT_EQ(MakeModel(spec_, nullptr), absl::OkStatus());
  const std::string weights = Bytes("model.safetensors");
  const std::string inputs = Bytes("inputs.npy");
  ASSERT_EQ(MakeModel(spec_, nullptr), absl::OkStatus());
  EXPECT_TRUE(weights == Bytes("model.safetensors"));
  EXPECT_TRUE(inputs == Bytes("inputs.npy"));
  ++spec_.seed;
  ASSERT_EQ(MakeModel(spec_, nullptr), absl::OkStatus());
  EXPECT_FALSE(weights == Bytes("model.safetensors"));
  EXPECT_FALSE(inputs == Bytes("inputs.npy"));
}

TEST_F(MakeModelTest, ShardsHoldTheSameWeights) {
  const auto hash_of = [this] {
    ModelOptions options;
    options.folder = spec_.out;
    absl::StatusOr<ModelPlan> plan = OpenModel(options);
    if (!plan.ok()) return plan.status().ToString();
    plan->config.max_batch_tokens = 1;
    absl::StatusOr<std::unique_ptr<FfnBackend>> backend =
        NewCpuBackend(plan->config, 1);
    if (!backend.ok()) return backend.status().ToString();
    absl::StatusOr<LoadedModel> result = LoadLayers(*plan, **backend, nullptr);
    return result.ok() ? result->weights_hash : result.status().ToString();
  };
  spec_.num_layers = 5;
  std::vector<size_t> layers_done;
  ASSERT_EQ(MakeModel(spec_,
                      [&](const MakeProgress& now) {
                        EXPECT_EQ(now.layers_total, 5);
                        layers_done.push_back(now.layers_done);
                      }),
            absl::OkStatus());
  EXPECT_THAT(layers_done, testing::ElementsAre(1, 2, 3, 4, 5));
  const std::string hash = hash_of();
  EXPECT_THAT(hash, testing::MatchesRegex("[0-9a-f]{32}"));
  // Into the same folder: of the earlier model nothing may stay.
  const std::string kept = "model-1-of-3.safetensors";
  WriteBytes(spec_.out + "/" + kept, "of somebody else");
  spec_.shards = 3;
  ASSERT_EQ(MakeModel(spec_, nullptr), absl::OkStatus());
  EXPECT_THAT(Names(),
              testing::UnorderedElementsAre("config.json", "inputs.npy", kept,
                                            "model-00001-of-00003.safetensors",
                                            "model-00002-of-00003.safetensors",
                                            "model-00003-of-00003.safetensors",
                                            "model.safetensors.index.json"));
  EXPECT_EQ(hash, hash_of());
  spec_.shards = 1;
  ASSERT_EQ(MakeModel(spec_, nullptr), absl::OkStatus());
  EXPECT_THAT(Names(),
              testing::UnorderedElementsAre("config.json", "inputs.npy", kept,
                                            "model.safetensors"));
  EXPECT_EQ(hash, hash_of());
}

TEST_F(MakeModelTest, ACheckpointOfSomebodyElseIsLeftAlone) {
  spec_.out = folder_.path();
  for (const char* name : {"config.json", "model-00001-of-00002.safetensors",
                           "model.safetensors.index.json"}) {
    WriteBytes(folder_.File(name), "precious");
    EXPECT_THAT(Error(), HasSubstr("found one without inputs.npy"));
    EXPECT_EQ(Bytes(name), "precious");
    EXPECT_THAT(Names(), testing::ElementsAre(name));
    ASSERT_EQ(unlink(folder_.File(name).c_str()), 0);
  }
  WriteBytes(folder_.File("notes.txt"), "in nobody's way");
  EXPECT_EQ(MakeModel(spec_, nullptr), absl::OkStatus());
}

TEST_F(MakeModelTest, ReachesTheDensity) {
  spec_.hidden_size = 128;
  for (const double density : {0.02, 0.11, 0.5, 0.9}) {
    for (const char* activation : {"relu", "fatrelu"}) {
      SCOPED_TRACE(absl::StrCat(activation, " ", density));
      spec_.density = density;
      spec_.activation = activation;
      spec_.threshold = spec_.activation == "fatrelu" ? 0.03 : 0;
      ASSERT_EQ(MakeModel(spec_, nullptr), absl::OkStatus());
      // The share's deviation over 601 neurons is below 0.5 / sqrt(601) / 2.
      EXPECT_NEAR(ShareOf(MaskOf(spec_.out, 1)), density, 0.05);
    }
  }
}

TEST_F(MakeModelTest, DensityZeroAndOneAreExactAtAnySize) {
  for (const size_t hidden : {size_t{1}, size_t{7}, size_t{300}}) {
    for (const double density : {0.0, 1.0}) {
      for (const double threshold : {0.0, 0.5}) {
        SCOPED_TRACE(absl::StrCat(hidden, " ", density, " ", threshold));
        spec_.hidden_size = hidden;
        spec_.density = density;
        spec_.activation = threshold > 0 ? "fatrelu" : "relu";
        spec_.threshold = threshold;
        ASSERT_EQ(MakeModel(spec_, nullptr), absl::OkStatus());
        EXPECT_EQ(ShareOf(MaskOf(spec_.out, 0)), density);
      }
    }
  }
}

TEST_F(MakeModelTest, ReplaysExactlyInEveryType) {
  const std::vector<float> activations = WriteActivations(40);
  for (const DataType dtype :
       {DataType::kBFloat16, DataType::kFloat16, DataType::kFloat32}) {
    for (const double threshold : {0.0, 0.01}) {
      SCOPED_TRACE(absl::StrCat(DataTypeName(dtype), " ", threshold));
      spec_.dtype = dtype;
      spec_.activation = threshold > 0 ? "fatrelu" : "relu";
      spec_.threshold = threshold;
      ASSERT_EQ(MakeModel(spec_, nullptr), absl::OkStatus());
      for (const int layer : {0, 1}) {
        EXPECT_EQ(MaskOf(spec_.out, layer), MaskOf(activations));
        EXPECT_EQ(CountsByBackend(spec_.out, layer),
                  CountsOf(activations, spec_.intermediate_size));
      }
    }
  }
}

TEST_F(MakeModelTest, ReplaysRowsThatAreAllOrNothing) {
  for (const float value : {0.0F, 0.2F}) {
    const std::vector<float> activations(3 * spec_.intermediate_size, value);
    spec_.replay = folder_.File("uniform.npy");
    ASSERT_EQ(WriteNpy({activations.data(), 3, spec_.intermediate_size,
                        DataType::kFloat32},
                       spec_.replay),
              absl::OkStatus());
    ASSERT_EQ(MakeModel(spec_, nullptr), absl::OkStatus());
    EXPECT_EQ(MaskOf(spec_.out, 0), MaskOf(activations));
  }
}

TEST_F(MakeModelTest, ReplaysRealActivations) {
  const char* named = std::getenv("SPARSE_FFN_ACTIVATIONS");
  const std::string path =
      named != nullptr ? named
                       : SPARSE_FFN_SOURCE_DIR
          "/../shared/data/prosparse7b_gate_activations.npy";
  absl::StatusOr<NpyArray> file = ReadNpy(path);
  if (!file.ok()) GTEST_SKIP() << "no real activations: " << file.status();
  std::vector<float> activations(file->rows * file->cols);
  Convert(file->view(),
          {activations.data(), file->rows, file->cols, DataType::kFloat32});
  spec_.intermediate_size = file->cols;
  spec_.num_layers = 1;
  spec_.activation = "fatrelu";
  spec_.threshold = 0.01;
  spec_.replay = path;
  ASSERT_EQ(MakeModel(spec_, nullptr), absl::OkStatus());
  EXPECT_EQ(MaskOf(spec_.out, 0), MaskOf(activations));
  EXPECT_EQ(CountsByBackend(spec_.out, 0), CountsOf(activations, file->cols));
}

TEST_F(MakeModelTest, ReplaysThatCannotBeAreErrors) {
  WriteActivations(300);
  EXPECT_THAT(Error(), HasSubstr("expected at most 256 activation rows"));
  EXPECT_THAT(Error(), HasSubstr("found 300"));
  WriteActivations(10);
  ++spec_.intermediate_size;
  EXPECT_THAT(Error(), HasSubstr("602 columns, the intermediate size, found "
                                 "[10, 601]"));
  --spec_.intermediate_size;
  std::vector<float> bad(spec_.intermediate_size, 0);
  for (const float value : {-1.0F, std::nanf(""), INFINITY}) {
    bad[17] = value;
    ASSERT_EQ(
        WriteNpy({bad.data(), 1, bad.size(), DataType::kFloat32}, spec_.replay),
        absl::OkStatus());
    EXPECT_THAT(Error(), HasSubstr("row 0, column 17"));
  }
  spec_.replay = folder_.path();
  EXPECT_THAT(Error(), HasSubstr("found a directory"));
}

TEST_F(MakeModelTest, BadSpecsAreErrors) {
  const auto error_of = [this](void (*change)(ModelSpec&)) {
    ModelSpec spec = spec_;
    change(spec);
    return std::string(MakeModel(spec, nullptr).message());
  };
  EXPECT_THAT(error_of([](ModelSpec& s) { s.hidden_size = 0; }),
              HasSubstr("hidden-size"));
  EXPECT_THAT(error_of([](ModelSpec& s) { s.intermediate_size = 1UL << 40; }),
              HasSubstr("intermediate-size"));
  EXPECT_THAT(error_of([](ModelSpec& s) { s.num_layers = 0; }),
              HasSubstr("layers"));
  EXPECT_THAT(error_of([](ModelSpec& s) { s.shards = 3; }),
              HasSubstr("shards: expected a number from 1 to 2, found 3"));
  EXPECT_THAT(error_of([](ModelSpec& s) { s.density = 1.5; }),
              HasSubstr("density"));
  EXPECT_THAT(error_of([](ModelSpec& s) { s.density = std::nan(""); }),
              HasSubstr("density"));
  EXPECT_THAT(error_of([](ModelSpec& s) { s.activation = "silu"; }),
              HasSubstr("relu, fatrelu or drelu, found silu"));
  EXPECT_THAT(error_of([](ModelSpec& s) { s.threshold = 0.1; }),
              HasSubstr("threshold: expected 0 with relu"));
  EXPECT_THAT(error_of([](ModelSpec& s) { s.out.clear(); }), HasSubstr("out"));
  WriteBytes(folder_.File("file"), "");
  spec_.out = folder_.File("file");
  EXPECT_THAT(Error(), HasSubstr("cannot be made a folder"));
  EXPECT_TRUE(absl::IsInvalidArgument(PresetModel("gpt-2").status()));
  for (const std::string& name : PresetNames()) {
    EXPECT_TRUE(PresetModel(name).ok()) << name;
  }
}

TEST(GateSolverTest, DependentInputsAreAnError) {
  const absl::Status status =
      GateSolver::Create({1, 2, 3, 4, 2, 4, 6, 8}, 4).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("independent"));
}

TEST(GateSolverTest, WhatRoundingDefeatsIsAnError) {
  // Two inputs that differ by less than a step of bfloat16, to be told apart.
  absl::StatusOr<GateSolver> solver =
      GateSolver::Create({1, 2, 3, 4, 1, 2, 3, 4 + 0x1p-12F}, 4);
  ASSERT_TRUE(solver.ok()) << solver.status();
  const float wanted[] = {0, 1};
  float row[] = {0.1F, -0.3F, 0.2F, 0.1F};
  GateSolver::Scratch scratch;
  const absl::Status status =
      solver->Solve(wanted, 0.5, 1, DataType::kBFloat16, row, scratch);
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("fewer rows or a wider type help"));
}

TEST(NormalQuantileTest, InvertsKnownProbabilities) {
  EXPECT_NEAR(NormalQuantile(0.5), 0, 1e-6);
  EXPECT_NEAR(NormalQuantile(0.975), 1.959964, 2e-6);
  EXPECT_NEAR(NormalQuantile(0.1), -1.281552, 2e-6);
}

}  // namespace
}  // namespace sparse_ffn
