// What a backend says of itself, and what it refuses.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "tests/conformance/conformance_test.h"
#include "tests/conformance/test_backend.h"
#include "tests/conformance/test_layer.h"

namespace sparse_ffn {
namespace {

TEST_F(ConformanceTest, DescribesItself) {
  const TestLayer layer(
      {32, 48, DataType::kBFloat16, Activation::kRelu, 0, 0.5}, 1, seed_);
  const Bench bench = MakeBench({&layer, &layer}, 4);
  EXPECT_STREQ(bench.backend->name(), TestBackend().name);
  EXPECT_FALSE(bench.backend->device_name().empty());
  EXPECT_EQ(bench.backend->weights_bytes(), 2U * 3 * 32 * 48 * 2);
}

TEST_F(ConformanceTest, RunRefusesWhatIsNotThere) {
  const TestLayer layer({}, 1, seed_);
  const Bench bench = MakeBench({&layer}, 4);
  for (int missing : {1, -1, 1 << 30}) {
    EXPECT_EQ(bench.lane->Run(missing, 1, Execution::kAuto).status().code(),
              absl::StatusCode::kNotFound);
  }
  for (size_t tokens : {size_t{0}, size_t{5}, SIZE_MAX}) {
    EXPECT_EQ(bench.lane->Run(0, tokens, Execution::kAuto).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(bench.lane->Run(0, 4, Execution::kAuto).ok());
}

TEST_F(ConformanceTest, AddLayerRefusesWhatDoesNotFit) {
  const TestLayerShape shape = {6, 10, DataType::kBFloat16};
  const TestLayer layer(shape, 1, seed_);
  const OwnedMatrix narrow(10, 5, DataType::kBFloat16);
  const OwnedMatrix turned(6, 10, DataType::kBFloat16);
  const OwnedMatrix wide_type(10, 6, DataType::kFloat32);
  ConstMatrix no_data = layer.up_proj.view();
  no_data.data = nullptr;
  const auto backend = NewTestBackend(ConfigOf(shape, 1)).value();
  for (ConstMatrix wrong :
       {narrow.view(), turned.view(), wide_type.view(), no_data}) {
    for (int which = 0; which < 3; ++which) {
      FfnWeights weights = layer.weights();
      (which == 0   ? weights.gate_proj
       : which == 1 ? weights.up_proj
                    : weights.down_proj) = wrong;
      EXPECT_EQ(backend->AddLayer(0, weights).code(),
                absl::StatusCode::kInvalidArgument);
    }
  }
  EXPECT_EQ(backend->weights_bytes(), 0U);
  EXPECT_TRUE(backend->AddLayer(0, layer.weights()).ok());
  EXPECT_EQ(backend->AddLayer(0, layer.weights()).code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(backend->AddLayer(7, layer.weights()).ok());
}

TEST_F(ConformanceTest, RefusesBadConfigs) {
  const FfnConfig good = ConfigOf({}, 1);
  std::vector<FfnConfig> bad(9, good);
  bad[0].hidden_size = 0;
  bad[1].intermediate_size = 0;
  bad[2].max_batch_tokens = 0;
  bad[3].hidden_size = SIZE_MAX / 2;
  bad[4].activation = Activation::kFatRelu;
  bad[4].threshold = std::numeric_limits<float>::quiet_NaN();
  bad[5].activation = Activation::kFatRelu;
  bad[5].threshold = -0.5F;
  bad[6].threshold = 0.5F;  // With relu.
  bad[7].intermediate_size = size_t{1} << 20;
  bad[7].max_batch_tokens = size_t{1} << 12;
  bad[8].launch_ahead_us = kMaxLaunchAheadUs + 1;
  for (size_t i = 0; i < bad.size(); ++i) {
    EXPECT_EQ(NewTestBackend(bad[i]).status().code(),
              absl::StatusCode::kInvalidArgument)
        << i;
  }
  FfnConfig huge = good;
  huge.hidden_size = size_t{1} << 20;
  huge.intermediate_size = size_t{1} << 24;
  huge.num_layers = 80;
  EXPECT_EQ(NewTestBackend(huge).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace sparse_ffn
