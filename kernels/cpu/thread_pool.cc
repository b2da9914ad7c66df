#include "kernels/cpu/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <chrono>

#include "hwy/cache_control.h"

namespace sparse_ffn::cpu {
namespace {

using Clock = std::chrono::steady_clock;

// Longer than the gap between two steps of a batch, shorter than anybody
// minds: going to sleep and waking up costs more than this.
constexpr std::chrono::microseconds kSpinTime(30);
constexpr int kPausesPerLook = 32;

// Whether `ready` turned true within kSpinTime.
template <typename Ready>
bool SpinUntil(Ready ready) {
  const Clock::time_point end = Clock::now() + kSpinTime;
  do {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (ready()) return true;
      hwy::Pause();
    }
  } while (Clock::now() < end);
  return ready();
}

}  // namespace

int AvailableProcessors() {
  cpu_set_t processors;
  CPU_ZERO(&processors);
  if (sched_getaffinity(0, sizeof(processors), &processors) == 0) {
    return std::max(1, CPU_COUNT(&processors));
  }
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

ThreadPool::ThreadPool(int threads) {
  try {
    workers_.reserve(static_cast<size_t>(threads) - 1);
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { Work(); });
  } catch (...) {
    Stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { Stop(); }

void ThreadPool::Stop() {
  {
    const std::lock_guard<std::mutex> lock(sleep_mutex_);
    stop_ = true;
  }
  work_came_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(size_t parts, Part task) {
  const std::lock_guard<std::mutex> run_lock(run_mutex_);
  task_ = &task;
  unfinished_.store(parts, std::memory_order_relaxed);
  unclaimed_.store(parts, std::memory_order_release);
  if (parts > 1 && !workers_.empty()) {
    // Under the lock, or a worker about to sleep might miss it.
    { const std::lock_guard<std::mutex> lock(sleep_mutex_); }
    work_came_.notify_all();
  }
  TakeParts();
  const auto done = [this] {
    return unfinished_.load(std::memory_order_acquire) == 0;
  };
  if (SpinUntil(done)) return;
  std::unique_lock<std::mutex> lock(sleep_mutex_);
  task_done_.wait(lock, done);
}

void ThreadPool::TakeParts() {
  size_t unclaimed = unclaimed_.load(std::memory_order_relaxed);
  while (unclaimed > 0) {
    if (!unclaimed_.compare_exchange_weak(unclaimed, unclaimed - 1,
                                          std::memory_order_acq_rel)) {
      continue;
    }
    (*task_)(unclaimed - 1);
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      { const std::lock_guard<std::mutex> lock(sleep_mutex_); }
      task_done_.notify_all();
    }
    unclaimed = unclaimed_.load(std::memory_order_relaxed);
  }
}

void ThreadPool::Work() {
  const auto work_is_there = [this] {
    return unclaimed_.load(std::memory_order_relaxed) > 0;
  };
  while (true) {
    if (!SpinUntil(work_is_there)) {
      std::unique_lock<std::mutex> lock(sleep_mutex_);
      work_came_.wait(lock, [&] { return stop_ || work_is_there(); });
      if (stop_) return;
    }
    TakeParts();
  }
}

}  // namespace sparse_ffn::cpu
