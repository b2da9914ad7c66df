// Threads that share the parts of one task at a time.
#ifndef SPARSE_FFN_KERNELS_CPU_THREAD_POOL_H_
#define SPARSE_FFN_KERNELS_CPU_THREAD_POOL_H_

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace sparse_ffn::cpu {

// Processors this process may run on, at least 1.
int AvailableProcessors();

// Starts its threads at construction and joins them at destruction. May be
// shared: tasks of several callers run one after the other.
class ThreadPool {
 public:
  using Part = absl::FunctionRef<void(size_t part)>;

  // `threads` >= 1 counts the caller's own thread. Throws std::system_error
  // where a thread cannot be started.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls `task` once for each number in [0, parts), the caller's thread taking
  // its share, and returns when all calls have. `task` must not call Run.
  // Whoever is free takes the next part: a thread that lost its processor
  // delays the task by one part at most.
  void Run(size_t parts, Part task);

 private:
  void Work();
  void TakeParts();
  void Stop();

  std::mutex run_mutex_;  // Held while a task runs.
  // Set while unfinished_ > 0; read only after a part was claimed.
  const Part* task_ = nullptr;
  alignas(64) std::atomic<size_t> unclaimed_ = 0;
  alignas(64) std::atomic<size_t> unfinished_ = 0;

  alignas(64) std::mutex sleep_mutex_;
  std::condition_variable work_came_;
  std::condition_variable task_done_;
  bool stop_ = false;  // Guarded by sleep_mutex_.

  std::vector<std::thread> workers_;
};

}  // namespace sparse_ffn::cpu

#endif  // SPARSE_FFN_KERNELS_CPU_THREAD_POOL_H_
