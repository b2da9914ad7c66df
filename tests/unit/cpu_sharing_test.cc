#include <gtest/gtest.h>

#include <vector>

#include "kernels/cpu/sharing.h"

namespace sparse_ffn::cpu {
namespace {

bool Pays(const std::vector<uint32_t>& needs, size_t tokens) {
  return SharingPays(needs.data(), needs.size(), tokens);
}

TEST(CpuSharingTest, SharesRowsThatAllTokensNeed) {
  for (uint32_t tokens : {1, 2, 3, 4}) {
    EXPECT_TRUE(Pays(std::vector<uint32_t>(32, tokens), tokens)) << tokens;
    EXPECT_TRUE(Pays({tokens}, tokens)) << tokens;
  }
}

TEST(CpuSharingTest, RowsThatNobodyNeedsDoNotCount) {
  EXPECT_TRUE(Pays({0, 4, 0, 0, 0, 4, 0, 0}, 4));
  EXPECT_FALSE(Pays({0, 1, 0, 0, 0, 1, 0, 0}, 4));
}

TEST(CpuSharingTest, KeepsApartWhatOneTokenNeeds) {
  EXPECT_FALSE(Pays({1, 1, 1}, 2));
  EXPECT_FALSE(Pays({1, 1, 1}, 4));
  EXPECT_FALSE(Pays({2, 2, 2}, 4));
  EXPECT_TRUE(Pays({3, 3, 3}, 4));
}

}  // namespace
}  // namespace sparse_ffn::cpu
