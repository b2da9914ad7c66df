// Deterministic backends: to the bit the same whatever runs beside or before a
// token.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cuda/cuda_steps_memory.h"
#include "tests/conformance/deterministic_test.h"
#include "tests/sanitized.h"

namespace sparse_ffn {
namespace {

using testing::Each;

class DeterministicBitsTest : public DeterministicTest {
 protected:
  // Batches of any size of any states through any layer, in each of which the
  // tokens keep the bits they have alone.
  static void ExpectBitsInRandomBatches(
      FfnLane& lane, const OwnedMatrix& states,
      const std::vector<std::vector<Bits>>& sparse,
      const std::vector<std::vector<Bits>>& dense, uint64_t seed) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < (kSanitized ? 10 : 120); ++i) {
      const size_t layer = random() % sparse.size();
      const Execution execution = kExecutions[random() % kExecutions.size()];
      const std::vector<size_t> rows =
          Turned(random() % kStates, 1 + random() % kStates);
      const std::vector<Bits> got =
          RowsOf(Run(lane, static_cast<int>(layer), states, rows, execution));
      const std::vector<Bits>& alone =
          (execution == Execution::kDense ? dense : sparse)[layer];
      for (size_t t = 0; t < rows.size(); ++t) {
        EXPECT_EQ(got[t], alone[rows[t]]) << i << ": token " << t;
      }
    }
  }
};

// Sparse batches of any size.
TEST_F(DeterministicBitsTest, AreThoseOfTheTokenAloneAtTheEdges) {
  for (const TestLayerShape& shape : EdgeShapes()) {
    const TestLayer layer(shape, kStates, seed_);
    const auto backend = MakeBackend({&layer}, kStates);
    const auto lane = backend->NewLane().value();
    const std::vector<Bits> alone =
        Alone(*lane, 0, layer.hidden_states, Execution::kSparse);
    for (size_t tokens = 2; tokens <= kStates; tokens += kSanitized ? 15 : 1) {
      const std::vector<size_t> rows = Turned(tokens, tokens);
      const std::vector<Bits> got =
          RowsOf(Run(*lane, 0, layer.hidden_states, rows, Execution::kSparse));
      for (size_t t = 0; t < tokens; ++t) {
        EXPECT_EQ(got[t], alone[rows[t]])
            << shape.hidden_size << " x " << shape.intermediate_size << ", "
            << tokens << " tokens: " << t;
      }
    }
  }
}

// Weights of neurons that are inactive for the first token, and active for
// others.
TEST_F(DeterministicBitsTest, OtherTokensNaNStaysWithThem) {
  for (const TestLayerShape& shape : Shapes()) {
    const TestLayer layer(shape, kStates, seed_);
    TestLayer poisoned = layer;
    poisoned.PoisonInactive(layer.Expected(), 1);
    const auto backend = MakeBackend({&layer, &poisoned}, kStates);
    const auto lane = backend->NewLane().value();
    const Bits alone =
        RowsOf(Run(*lane, 0, layer.hidden_states, {0}, Execution::kSparse))
            .front();
    for (size_t tokens : {2, 3, 8, 9, 16, 17, 33}) {
      EXPECT_EQ(RowsOf(Run(*lane, 1, layer.hidden_states, Turned(0, tokens),
                           Execution::kSparse))
                    .front(),
                alone)
          << tokens;
    }
  }
}

TEST_F(DeterministicBitsTest, RepeatsItself) {
  constexpr int kRuns = kSanitized ? 50 : 1000;
  for (const TestLayerShape& shape : Shapes()) {
    const TestLayer layer(shape, 1, seed_);
    const auto backend = MakeBackend({&layer}, 4);
    const auto lane = backend->NewLane().value();
    for (Execution execution : kExecutions) {
      const std::vector<Bits> first =
          Alone(*lane, 0, layer.hidden_states, execution);
      for (int i = 0; i < kRuns; ++i) {
        ASSERT_EQ(Alone(*lane, 0, layer.hidden_states, execution), first) << i;
      }
    }
  }
}

TEST_F(DeterministicBitsTest, AreThoseOfTheTokenAloneAtAnyPlace) {
  constexpr size_t kStep = kSanitized ? 11 : 1;
  for (const TestLayerShape& shape : Shapes()) {
    const TestLayer layer(shape, kStates, seed_);
    const auto backend = MakeBackend({&layer}, kStates);
    const auto lane = backend->NewLane().value();
    for (Execution execution : kExecutions) {
      const std::vector<Bits> alone =
          Alone(*lane, 0, layer.hidden_states, execution);
      for (size_t tokens : {2, 7, 33}) {
        for (size_t first = 0; first < kStates; first += kStep) {
          const std::vector<size_t> rows = Turned(first, tokens);
          const std::vector<Bits> got =
              RowsOf(Run(*lane, 0, layer.hidden_states, rows, execution));
          for (size_t t = 0; t < tokens; ++t) {
            EXPECT_EQ(got[t], alone[rows[t]]) << tokens << " tokens: " << t;
          }
        }
      }
    }
  }
}

// Batches of more tokens than a CUDA backend takes at once: sparse ones in
// passes, dense ones in products of kDenseTokens. At the sizes of a model, too,
// for which its library may have other kernels. The input stays as it is.
TEST_F(DeterministicBitsTest, BatchesMayBeLarge) {
  constexpr size_t kTokens = kSanitized ? 40 : 300;
  static_assert(kSanitized || kTokens > 2 * cuda::kDenseTokens);
  std::vector<TestLayerShape> shapes = Shapes();
  if (!TestBackend().independent_of_batch) {
    shapes.push_back(
        {4096, 11008, DataType::kBFloat16, Activation::kRelu, 0, 0.1});
  }
  for (const TestLayerShape& shape : shapes) {
    const TestLayer layer(shape, kTokens, seed_);
    const auto backend = MakeBackend({&layer}, kTokens);
    const auto lane = backend->NewLane().value();
    for (Execution execution : {Execution::kSparse, Execution::kDense}) {
      const std::vector<Bits> alone =
          Alone(*lane, 0, layer.hidden_states, execution);
      for (size_t tokens :
           {size_t{34}, size_t{35}, size_t{64}, size_t{100}, cuda::kDenseTokens,
            cuda::kDenseTokens + 1, kTokens}) {
        if (tokens > kTokens) continue;
        std::vector<size_t> rows(tokens);
        std::iota(rows.rbegin(), rows.rend(), kTokens - tokens);
        std::vector<Bits> expected;
        for (size_t row : rows) expected.push_back(alone[row]);
        EXPECT_EQ(RowsOf(Run(*lane, 0, layer.hidden_states, rows, execution)),
                  expected)
            << shape.hidden_size << ", " << tokens << " tokens";
        EXPECT_EQ(RowsOf(lane->Run(0, tokens, execution).value()), expected)
            << shape.hidden_size << ", " << tokens << " tokens again";
      }
    }
  }
}

// A CUDA backend pads the products of a dense batch with whatever earlier
// batches left.
TEST_F(DeterministicBitsTest, WhatIsLeftOfOthersDoesNotMatter) {
  for (const TestLayerShape& shape : Shapes()) {
    const TestLayer layer(shape, kStates, seed_);
    const auto backend = MakeBackend({&layer}, kStates);
    const auto lane = backend->NewLane().value();
    for (Execution execution : kExecutions) {
      const std::vector<Bits> alone =
          Alone(*lane, 0, layer.hidden_states, execution);
      OwnedMatrix poison(kStates, shape.hidden_size, shape.dtype);
      const std::vector<float> nan(shape.hidden_size,
                                   std::numeric_limits<float>::quiet_NaN());
      for (size_t row = 0; row < kStates; ++row) poison.SetRow(row, nan);
      const Matrix input = lane->input(kStates);
      std::memcpy(input.data, poison.view().data, input.bytes());
      ASSERT_TRUE(lane->Run(0, kStates, execution).ok());
      EXPECT_EQ(Alone(*lane, 0, layer.hidden_states, execution), alone);
    }
  }
}

// Also of another lane that runs at the same time. All neurons of layer 1 are
// active, which would draw kAuto to the dense path.
TEST_F(DeterministicBitsTest, DoNotDependOnWhatRanBefore) {
  for (TestLayerShape shape : Shapes()) {
    const TestLayer layer(shape, kStates, seed_);
    shape.density = 1;
    const TestLayer full(shape, 1, seed_ + 1);
    const auto backend = MakeBackend({&layer, &full}, kStates);
    const auto lane = backend->NewLane().value();
    const auto other = backend->NewLane().value();
    std::vector<std::vector<Bits>> sparse;
    std::vector<std::vector<Bits>> dense;
    for (int i : {0, 1}) {
      const OwnedMatrix& states = layer.hidden_states;
      sparse.push_back(Alone(*lane, i, states, Execution::kSparse));
      dense.push_back(Alone(*lane, i, states, Execution::kDense));
    }
    std::thread beside([&] {
      ExpectBitsInRandomBatches(*other, layer.hidden_states, sparse, dense,
                                seed_);
    });
    ExpectBitsInRandomBatches(*lane, layer.hidden_states, sparse, dense,
                              seed_ + 1);
    beside.join();
  }
}

TEST_F(DeterministicBitsTest, DoNotDependOnTheLargestBatch) {
  for (const TestLayerShape& shape : Shapes()) {
    const TestLayer layer(shape, kStates, seed_);
    for (Execution execution : kExecutions) {
      std::vector<std::vector<Bits>> alone;
      for (size_t max_tokens : {1, 5, 300}) {
        const auto backend = MakeBackend({&layer}, max_tokens);
        const auto lane = backend->NewLane().value();
        alone.push_back(Alone(*lane, 0, layer.hidden_states, execution));
      }
      EXPECT_THAT(alone, Each(alone.front()));
    }
  }
}

TEST_F(DeterministicBitsTest, DoNotDependOnTheThreads) {
  if (std::string(TestBackend().name) != "cpu") GTEST_SKIP() << "has none";
  for (const TestLayerShape& shape : Shapes()) {
    const TestLayer layer(shape, kStates, seed_);
    for (Execution execution : kExecutions) {
      std::vector<std::vector<Bits>> alone;
      for (int threads : {1, 2, 3, 7}) {
        const auto backend =
            NewCpuBackend(ConfigOf(shape, kStates), threads).value();
        ASSERT_TRUE(backend->AddLayer(0, layer.weights()).ok());
        const auto lane = backend->NewLane().value();
        alone.push_back(Alone(*lane, 0, layer.hidden_states, execution));
      }
      EXPECT_THAT(alone, Each(alone.front()));
    }
  }
}

TEST_F(DeterministicBitsTest, TakesTheFormsThatRepeatThemselves) {
  for (const TestLayerShape& shape : Shapes()) {
    const TestLayer layer(shape, kStates, seed_);
    for (SparseForm form : TestBackend().sparse_forms) {
      if (form == SparseForm::kSteps) {
        EXPECT_EQ(NewTestBackend(ConfigOf(shape, 1), form).status().code(),
                  absl::StatusCode::kInvalidArgument);
        continue;
      }
      const auto backend = MakeBackend({&layer}, kStates, form);
      const auto lane = backend->NewLane().value();
      const std::vector<Bits> alone =
          Alone(*lane, 0, layer.hidden_states, Execution::kSparse);
      for (int i = 0; i < 20; ++i) {
        EXPECT_EQ(RowsOf(Run(*lane, 0, layer.hidden_states, Turned(0, kStates),
                             Execution::kSparse)),
                  alone);
      }
    }
  }
}

}  // namespace
}  // namespace sparse_ffn
