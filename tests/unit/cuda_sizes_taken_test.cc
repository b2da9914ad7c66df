// Which sizes the kernels for batches take: no result says so, only the time.
#include <gtest/gtest.h>

#include "kernels/cuda/launch_fused.h"

namespace sparse_ffn::cuda {
namespace {

constexpr Device kH200 = {
    .sm_count = 132, .dependent_launch = true, .shared_bytes = 227 << 10};
constexpr int kMostNeurons = 132 * 512;  // Of any fused launch.
constexpr Device kOldDevice = {
    .sm_count = 132, .dependent_launch = false, .shared_bytes = 227 << 10};
constexpr Device kSmallBlocks = {
    .sm_count = 132, .dependent_launch = true, .shared_bytes = 99 << 10};

// Which batches stream whole rows.
TEST(FusedGatedUpRowsTest, TakesWhatFitsRegistersAndSharedMemory) {
  for (int hidden_size : {8, 64, 1536, 1568, 4096, 5120, 5152}) {
    for (int tokens : {2, 8, 9, 16}) {
      for (int neurons : {1, 3840, 13824, kMostNeurons}) {
        for (bool ordered : {false, true}) {
          EXPECT_TRUE(FusedGatedUpRowsTakes(kH200, tokens, hidden_size, neurons,
                                            ordered))
              << hidden_size << " x " << neurons << ", " << tokens << " tokens";
        }
      }
    }
  }
}

// More than 16 tokens: two blocks have the rows of both. In order two tiles of
// them have to fit, else three.
TEST(FusedGatedUpRowsTest, SharesRowsBetweenTwoBlocks) {
  constexpr auto takes = &FusedGatedUpRowsTakes;
  for (int tokens : {17, 32}) {
    for (int neurons : {2, 3840, 11008, kMostNeurons / 2}) {
      SCOPED_TRACE(testing::Message()
                   << neurons << ", " << tokens << " tokens");
      EXPECT_TRUE(takes(kH200, tokens, 2048, neurons, true));
      EXPECT_TRUE(takes(kH200, tokens, 5152, neurons, true));
      EXPECT_TRUE(takes(kH200, tokens, 2048, neurons, false));
      EXPECT_FALSE(takes(kH200, tokens, 5120, neurons, false));
    }
    EXPECT_TRUE(takes(kH200, tokens, 4384, 11008, false));
    EXPECT_FALSE(takes(kH200, tokens, 4392, 11008, false));
    EXPECT_TRUE(takes(kH200, tokens, 4576, 1100, false));
    EXPECT_FALSE(takes(kH200, tokens, 4584, 1100, false));
  }
  for (bool ordered : {false, true}) {
    EXPECT_FALSE(takes(kH200, 33, 4096, 11008, ordered));
    EXPECT_FALSE(takes(kH200, 17, 2040, 11008, ordered));
    EXPECT_FALSE(takes(kH200, 17, 5160, 11008, ordered));
    EXPECT_FALSE(takes(kH200, 17, 4096, 101, ordered));
    EXPECT_FALSE(takes(kH200, 17, 2048, kMostNeurons / 2 + 1, ordered));
    Device device = kH200;
    device.sm_count = 131;
    EXPECT_FALSE(takes(device, 17, 4096, 11008, ordered));
  }
}

TEST(FusedGatedUpRowsTest, LeavesTheRest) {
  for (bool ordered : {false, true}) {
    const auto takes = [ordered](Device device, int hidden_size, int neurons) {
      return FusedGatedUpRowsTakes(device, 8, hidden_size, neurons, ordered);
    };
    EXPECT_FALSE(takes(kH200, 5160, 11008));
    EXPECT_FALSE(takes(kH200, 4095, 11008));
    EXPECT_FALSE(takes(kH200, 4096, kMostNeurons + 1));
    EXPECT_FALSE(takes(kOldDevice, 4096, 11008));
    // One tile of these rows alone is 66 KB.
    EXPECT_FALSE(takes(kSmallBlocks, 4096, 11008));
    EXPECT_TRUE(takes(kSmallBlocks, 1536, 3840));
  }
}

// Which have step 3 in order: elsewhere each token of a deterministic backend
// runs alone.
TEST(OrderedDownTest, TakesWhatTheFusedLaunchTakes) {
  for (int hidden_size : {8, 1536, 4096, 5120, 5240}) {
    for (int neurons : {1, 3840, 13824, kMostNeurons}) {
      EXPECT_TRUE(OrderedDownTakes(kH200, hidden_size, neurons))
          << hidden_size << " x " << neurons;
    }
  }
  EXPECT_TRUE(OrderedDownTakes(kH200, 6144, 132 * 436));
  EXPECT_TRUE(OrderedDownTakes(kH200, 8192, 132 * 358));
}

TEST(OrderedDownTest, LeavesTheRest) {
  EXPECT_FALSE(OrderedDownTakes(kH200, 5248, kMostNeurons));
  EXPECT_FALSE(OrderedDownTakes(kH200, 6144, 132 * 437));
  EXPECT_FALSE(OrderedDownTakes(kH200, 8192, 132 * 359));
  EXPECT_FALSE(OrderedDownTakes(kH200, 4095, 11008));
  EXPECT_FALSE(OrderedDownTakes(kOldDevice, 4096, 11008));
  EXPECT_FALSE(OrderedDownTakes(kSmallBlocks, 4096, 11008));
}

}  // namespace
}  // namespace sparse_ffn::cuda
