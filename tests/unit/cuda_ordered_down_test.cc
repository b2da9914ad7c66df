// Which sizes have step 3 in order for batches: elsewhere each token of a
// deterministic backend runs alone, and only the time says so.
#include <gtest/gtest.h>

#include "kernels/cuda/launch.h"

namespace sparse_ffn::cuda {
namespace {

constexpr Device kH200 = {
    .sm_count = 132, .dependent_launch = true, .shared_bytes = 227 << 10};
constexpr int kMostNeurons = 132 * 512;  // Of any fused launch.

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
  Device device = kH200;
  device.dependent_launch = false;
  EXPECT_FALSE(OrderedDownTakes(device, 4096, 11008));
  device = kH200;
  device.shared_bytes = 99 << 10;
  EXPECT_FALSE(OrderedDownTakes(device, 4096, 11008));
}

}  // namespace
}  // namespace sparse_ffn::cuda
