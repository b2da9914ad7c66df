#include "server/checkpoint/parallel_blocks.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace sparse_ffn {

size_t UsableProcessors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    return static_cast<size_t>(std::max(1, CPU_COUNT(&set)));
  }
  return std::max(1U, std::thread::hardware_concurrency());
}

absl::Status ForEachBlock(
    size_t blocks, size_t workers,
    const std::function<absl::Status(size_t block, size_t worker)>& work) {
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  absl::Status first_error;
  const auto run = [&](size_t worker) {
    for (size_t block; (block = next.fetch_add(1)) < blocks;) {
      absl::Status status = work(block, worker);
      if (status.ok()) continue;
      next.store(blocks);
      const std::lock_guard<std::mutex> lock(mutex);
      if (first_error.ok()) first_error = std::move(status);
    }
  };
  std::vector<std::thread> threads;
  for (size_t worker = 1; worker < std::min(workers, blocks); ++worker) {
    try {
      threads.emplace_back(run, worker);
    } catch (const std::system_error&) {
      break;  // The threads there are will do it.
    }
  }
  run(0);
  for (std::thread& thread : threads) thread.join();
  return first_error;
}

}  // namespace sparse_ffn
