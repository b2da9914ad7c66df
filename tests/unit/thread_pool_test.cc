#include "kernels/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

namespace sparse_ffn::cpu {
namespace {

TEST(ThreadPoolTest, RunsEachPartOnce) {
  for (int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (size_t parts : {0, 1, 2, 3, 64}) {
      for (int repeat = 0; repeat < 50; ++repeat) {
        std::vector<int> calls(parts);  // No two parts share an element.
        pool.Run(parts, [&](size_t part) { ++calls[part]; });
        EXPECT_EQ(calls, std::vector<int>(parts, 1));
      }
    }
  }
}

TEST(ThreadPoolTest, WakesThreadsThatWentToSleep) {
  ThreadPool pool(3);
  for (int repeat = 0; repeat < 3; ++repeat) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    // Each of two parts waits for the other, so two threads must come.
    std::atomic<int> arrived = 0;
    pool.Run(2, [&](size_t) {
      ++arrived;
      while (arrived < 2) std::this_thread::yield();
    });
    EXPECT_EQ(arrived, 2);
  }
}

TEST(ThreadPoolTest, TakesTasksOfSeveralCallersInTurn) {
  ThreadPool pool(3);
  std::atomic<uint32_t> running = 0;
  std::atomic<bool> mixed = false;
  std::vector<std::thread> callers;
  std::vector<size_t> sums(4);
  for (size_t caller = 0; caller < sums.size(); ++caller) {
    callers.emplace_back([&, caller] {
      const uint32_t mark = uint32_t{1} << (8 * caller);
      for (int repeat = 0; repeat < 200; ++repeat) {
        std::atomic<size_t> sum = 0;
        pool.Run(5, [&](size_t part) {
          // Bytes of other callers must be 0 while this task runs.
          const uint32_t seen = running.fetch_add(mark);
          if ((seen & ~(0xffU * mark)) != 0) mixed = true;
          sum += part;
          running.fetch_sub(mark);
        });
        sums[caller] += sum;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_FALSE(mixed);
  EXPECT_EQ(sums, std::vector<size_t>(4, 2000));
}

TEST(ThreadPoolTest, CountsProcessors) { EXPECT_GE(AvailableProcessors(), 1); }

}  // namespace
}  // namespace sparse_ffn::cpu
