// main() of every GoogleTest program. Returns 77, which ctest shows as skipped,
// where tests were skipped and none ran: a skipped GPU suite must not look
// like a passed one.
#include <gtest/gtest.h>

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const int result = RUN_ALL_TESTS();
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  const int ran = all.test_to_run_count() - all.skipped_test_count();
  return result == 0 && ran == 0 && all.skipped_test_count() > 0 ? 77 : result;
}
