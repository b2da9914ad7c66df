// Launches that wait on the device for the batch that is foreseen: what they
// give is what any launch gives, and they do not hold up other batches.
#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "tests/conformance/conformance_test.h"
#include "tests/conformance/test_backend.h"
#include "tests/conformance/test_layer.h"

namespace sparse_ffn {
namespace {

class LaunchAheadTest : public ConformanceTest {
 protected:
  static constexpr size_t kLayers = 2;
  static constexpr size_t kMostTokens = 70;  // In three passes.
  // Of hidden states, of each layer.
  static constexpr size_t kRows = kMostTokens + 2;
  static constexpr uint32_t kSecond = 1'000'000;

  void SetUp() override {
    ConformanceTest::SetUp();
    if (IsSkipped()) return;
    if (!TestBackend().fuses_batches) {
      GTEST_SKIP() << "nothing is launched ahead here";
    }
  }

  // Layers of random weights.
  void MakeLayers(size_t hidden_size, size_t intermediate_size) {
    const TestLayerShape shape = {hidden_size,
                                  intermediate_size,
                                  DataType::kBFloat16,
                                  Activation::kRelu,
                                  0,
                                  0.15};
    layers_.clear();
    expected_.clear();
    for (size_t i = 0; i < kLayers; ++i) {
      layers_.push_back(std::make_unique<TestLayer>(shape, kRows, seed_ + i));
      expected_.push_back(layers_.back()->Expected());
    }
  }

  // A backend with the layers, and one lane.
  void MakeLane(uint32_t ahead_us, bool deterministic = false) {
    std::vector<const TestLayer*> views;
    for (const auto& layer : layers_) views.push_back(layer.get());
    FfnConfig config = ConfigOf(layers_.front()->shape, kMostTokens);
    config.num_layers = kLayers;
    config.launch_ahead_us = ahead_us;
    config.deterministic = deterministic;
    bench_.lane.reset();
    // Fused, also where a batch is timed.
    bench_.backend = MakeBackend(config, views, SparseForm::kFused);
    bench_.lane = bench_.backend->NewLane().value();
  }

  // Sends rows `row`, ... and looks at the result.
  FfnResult RunRows(FfnLane& lane, size_t layer, size_t row, size_t tokens,
                    Execution execution = Execution::kSparse) {
    const Matrix input = lane.input(tokens);
    const ConstMatrix states = layers_[layer]->hidden_states.view();
    std::memcpy(input.data, states.row(row), input.bytes());
    const auto result = lane.Run(static_cast<int>(layer), tokens, execution);
    EXPECT_TRUE(result.ok()) << result.status();
    const Comparison got = Compare(expected_[layer], row, result->output,
                                   Gated(result->stats, tokens));
    EXPECT_TRUE(got.passed) << "layer " << layer << ", row " << row << ", "
                            << tokens << " tokens: " << got.worst_error;
    for (size_t t = 0; t < tokens; ++t) {
      EXPECT_EQ(result->stats.active_neurons[t],
                expected_[layer].active_neurons[row + t]);
    }
    ExpectUnion(result->stats, expected_[layer], row, tokens);
    return *result;
  }

  // All layers in turn, again and again with other hidden states. How many
  // batches were launched ahead.
  size_t RunInTurn(FfnLane& lane, size_t tokens, size_t rounds) {
    size_t ahead = 0;
    for (size_t i = 0; i < rounds * kLayers; ++i) {
      const size_t row = i % (kRows - tokens + 1);
      const FfnResult result = RunRows(lane, i % kLayers, row, tokens);
      ahead += result.stats.launched_ahead ? 1 : 0;
      for (Bits& bits : RowsOf(result)) bits_.push_back(std::move(bits));
    }
    return ahead;
  }

  std::vector<std::unique_ptr<TestLayer>> layers_;
  std::vector<OracleResult> expected_;
  Bench bench_;
  std::vector<Bits> bits_;
};

// Whether batches of such sizes are launched ahead: all steps in one kernel, or
// steps 1 and 2 where they stream whole rows. Fewer neurons than that kernel
// takes are computed token by token where the bits matter.
bool IsLaunchedAhead(size_t hidden, size_t intermediate, size_t tokens,
                     bool deterministic) {
  if (intermediate < 128 && (tokens == 1 || deterministic)) return false;
  return tokens == 1 || (tokens <= 16 && hidden <= 5152);
}

// Few rows for each block, and more than it holds at once.
TEST_F(LaunchAheadTest, GivesTheSameBits) {
  for (const auto& [hidden, intermediate] : {std::pair<size_t, size_t>{64, 64},
                                             {64, 128},
                                             {64, 9000},
                                             {1536, 6000},
                                             {4096, 4000},
                                             {5120, 700},
                                             {8192, 600}}) {
    MakeLayers(hidden, intermediate);
    for (size_t tokens : {1, 2, 3, 8, 16, 17}) {
      for (bool deterministic : {false, true}) {
        SCOPED_TRACE(testing::Message()
                     << hidden << " x " << intermediate << ", " << tokens
                     << " tokens" << (deterministic ? ", ordered" : ""));
        MakeLane(/*ahead_us=*/0, deterministic);
        bits_.clear();
        EXPECT_EQ(RunInTurn(*bench_.lane, tokens, 6), 0U);
        const std::vector<Bits> expected = bits_;
        MakeLane(kSecond, deterministic);
        bits_.clear();
        EXPECT_EQ(RunInTurn(*bench_.lane, tokens, 6) > 0,
                  IsLaunchedAhead(hidden, intermediate, tokens, deterministic));
        // Others add up in any order.
        const bool one_kernel =
            intermediate >= 128 &&
            (tokens == 1 || (tokens == 2 && hidden <= 5120));
        if (one_kernel || deterministic) {
          EXPECT_EQ(bits_, expected);
        }
      }
    }
  }
}

// Of a steady row each batch but the first five, which show what follows what.
TEST_F(LaunchAheadTest, ForeseesAllOfARow) {
  constexpr size_t kRounds = 20;
  MakeLayers(64, 128);
  for (size_t tokens : {1, 2, 3, 16}) {
    for (bool deterministic : {false, true}) {
      SCOPED_TRACE(testing::Message() << tokens << " tokens"
                                      << (deterministic ? ", ordered" : ""));
      MakeLane(kSecond, deterministic);
      EXPECT_EQ(RunInTurn(*bench_.lane, tokens, kRounds),
                kRounds * kLayers - 5);
    }
  }
}

// Other layers, numbers of tokens and executions than those foreseen.
TEST_F(LaunchAheadTest, LeavesWhereAnotherBatchComes) {
  constexpr size_t kForeseen[] = {1, 2, 3, 8, 9, 16};
  MakeLayers(2048, 3840);
  for (bool deterministic : {false, true}) {
    MakeLane(kSecond, deterministic);
    std::mt19937_64 random(seed_);
    size_t ahead = 0;
    for (int i = 0; i < 120; ++i) {
      ahead += RunInTurn(*bench_.lane, kForeseen[random() % 6], 2);
      const size_t tokens = 1 + random() % kMostTokens;
      RunRows(*bench_.lane, random() % kLayers, 0, tokens,
              kExecutions[random() % kExecutions.size()]);
    }
    EXPECT_GT(ahead, 0U);
  }
}

// Batches that come in time, too late, and at the very moment.
TEST_F(LaunchAheadTest, LosesPatience) {
  constexpr uint32_t kPatienceUs = 60;
  MakeLayers(2048, 3840);
  for (bool deterministic : {false, true}) {
    MakeLane(kPatienceUs, deterministic);
    std::mt19937_64 random(seed_);
    for (size_t tokens : {1, 4, 16}) {
      for (size_t i = 0; i < 700; ++i) {
        std::this_thread::sleep_for(
            std::chrono::microseconds(random() % (uint64_t{2} * kPatienceUs)));
        RunRows(*bench_.lane, i % kLayers, i % (kRows - tokens + 1), tokens);
      }
    }
  }
}

TEST_F(LaunchAheadTest, NotBesideAnotherLane) {
  MakeLayers(64, 128);
  for (size_t tokens : {1, 3}) {
    for (bool deterministic : {false, true}) {
      MakeLane(kSecond, deterministic);
      EXPECT_GT(RunInTurn(*bench_.lane, tokens, 6), 0U);
      {
        const auto other = bench_.backend->NewLane().value();
        // One may wait already.
        RunInTurn(*bench_.lane, tokens, 1);
        EXPECT_EQ(RunInTurn(*bench_.lane, tokens, 6), 0U);
        EXPECT_EQ(RunInTurn(*other, tokens, 6), 0U);
      }
      EXPECT_GT(RunInTurn(*bench_.lane, tokens, 6), 0U);
    }
  }
}

}  // namespace
}  // namespace sparse_ffn
