#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/cuda/batch_passes.h"

namespace sparse_ffn::cuda {
namespace {

using testing::ElementsAre;
using testing::Pair;

// Tokens and neurons of each.
std::vector<std::pair<uint32_t, uint32_t>> PassesOf(const FfnStats& stats) {
  std::vector<std::pair<uint32_t, uint32_t>> passes;
  for (const FfnPass& pass : stats.passes) {
    passes.emplace_back(pass.tokens, pass.union_active_neurons);
  }
  return passes;
}

TEST(CounterStrideTest, IsWholePacks) {
  for (size_t tokens = 1; tokens <= 40; ++tokens) {
    EXPECT_GE(CounterStride(tokens), 1 + tokens);
    EXPECT_LT(CounterStride(tokens), 1 + tokens + 4);
    EXPECT_EQ(CounterStride(tokens) % 4, 0U);
  }
}

TEST(BatchPassesTest, DivideAllTokens) {
  const BatchPasses passes(100, 32);
  for (size_t tokens = 1; tokens <= 100; ++tokens) {
    size_t first = 0;
    size_t counters = 0;
    for (size_t i = 0; i < passes.Count(tokens); ++i) {
      EXPECT_EQ(passes.First(i), first);
      EXPECT_GE(passes.Tokens(i, tokens), 1U);
      EXPECT_LE(passes.Tokens(i, tokens), 32U);
      EXPECT_GE(passes.FirstCounter(i), counters);
      EXPECT_EQ(passes.FirstCounter(i) % 4, 0U);
      first += passes.Tokens(i, tokens);
      counters =
          passes.FirstCounter(i) + CounterStride(passes.Tokens(i, tokens));
      EXPECT_GE(passes.FirstCounter(i + 1), counters);
    }
    EXPECT_EQ(first, tokens);
    EXPECT_EQ(passes.Counters(tokens),
              passes.FirstCounter(passes.Count(tokens)));
  }
}

TEST(BatchPassesTest, CollectWhatThePassesCounted) {
  BatchPasses passes(5, 2);
  const std::vector<uint32_t> counters = {16, 7,  9,  0,  11, 8,
                                          4,  99, 20, 20, 99, 99};
  FfnStats stats;
  for (int i = 0; i < 2; ++i) {
    passes.Collect(counters.data(), 5, &stats);
    EXPECT_THAT(stats.active_neurons, ElementsAre(7, 9, 8, 4, 20));
    EXPECT_THAT(PassesOf(stats),
                ElementsAre(Pair(2, 16), Pair(2, 11), Pair(1, 20)));
    EXPECT_EQ(stats.union_active_neurons, 20U);
    passes.Collect(counters.data(), 3, &stats);
    EXPECT_THAT(stats.active_neurons, ElementsAre(7, 9, 8));
    EXPECT_THAT(PassesOf(stats), ElementsAre(Pair(2, 16), Pair(1, 11)));
    EXPECT_EQ(stats.union_active_neurons, 16U);
  }
}

TEST(BatchPassesTest, MayHaveOneTokenEach) {
  BatchPasses passes(3, 1);
  const std::vector<uint32_t> counters = {5, 5, 9, 9, 0, 0, 9, 9, 7, 7, 9, 9};
  FfnStats stats;
  passes.Collect(counters.data(), 3, &stats);
  EXPECT_THAT(stats.active_neurons, ElementsAre(5, 0, 7));
  EXPECT_THAT(PassesOf(stats), ElementsAre(Pair(1, 5), Pair(1, 0), Pair(1, 7)));
  EXPECT_EQ(stats.union_active_neurons, 7U);
}

}  // namespace
}  // namespace sparse_ffn::cuda
