#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "kernels/cpu/row_mask.h"
#include "kernels/cpu/sharing.h"

namespace sparse_ffn::cpu {
namespace {

using FourNeeds = std::array<RowMask, 4>;
using TwoNeeds = std::array<RowMask, 2>;

TEST(CpuSharingTest, SharesRowsThatAllTokensNeed) {
  EXPECT_TRUE(SharingPays(FourNeeds{1, 1, 1, 1}));
  EXPECT_TRUE(SharingPays(TwoNeeds{~RowMask{0}, ~RowMask{0}}));
  EXPECT_TRUE(SharingPays(std::array<RowMask, 1>{5}));
}

TEST(CpuSharingTest, RowsThatNobodyNeedsDoNotCount) {
  EXPECT_TRUE(SharingPays(FourNeeds{0x22, 0x22, 0x22, 0x22}));
  EXPECT_FALSE(SharingPays(FourNeeds{0x20, 0x02, 0, 0}));
}

TEST(CpuSharingTest, KeepsApartWhatOneTokenNeeds) {
  EXPECT_FALSE(SharingPays(TwoNeeds{3, 4}));
  EXPECT_FALSE(SharingPays(FourNeeds{1, 2, 4, 0}));
  EXPECT_FALSE(SharingPays(FourNeeds{7, 7, 0, 0}));
  EXPECT_TRUE(SharingPays(FourNeeds{7, 7, 7, 0}));
}

TEST(CpuSharingTest, SharesFromFiveInNineOn) {
  // Nine rows for four tokens: 20 of 36 products, then 19.
  EXPECT_TRUE(SharingPays(FourNeeds{0x1ff, 0x1ff, 3, 0}));
  EXPECT_FALSE(SharingPays(FourNeeds{0x1ff, 0x1ff, 1, 0}));
  // Of three tokens: 5 of 9, then 4.
  EXPECT_TRUE(SharingPays(std::array<RowMask, 3>{7, 3, 0}));
  EXPECT_FALSE(SharingPays(std::array<RowMask, 3>{7, 1, 0}));
}

TEST(RowMaskTest, VisitsRowsInOrder) {
  std::vector<size_t> rows;
  ForEachRow(RowMask{1} << 63 | 6, [&](size_t row) { rows.push_back(row); });
  EXPECT_EQ(rows, (std::vector<size_t>{1, 2, 63}));
  EXPECT_EQ(FirstRows(0), RowMask{0});
  EXPECT_EQ(FirstRows(3), RowMask{7});
  EXPECT_EQ(FirstRows(kMaskRows), ~RowMask{0});
}

}  // namespace
}  // namespace sparse_ffn::cpu
