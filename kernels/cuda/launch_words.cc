#include "kernels/cuda/launch_words.h"

#include <atomic>
#include <new>
#include <utility>

#include "absl/status/status.h"
#include "kernels/cuda/launch_outcome.h"

namespace sparse_ffn::cuda {

absl::StatusOr<LaunchWords> LaunchWords::New() {
  auto memory = NewPinnedMemory(sizeof(Words));
  if (!memory.ok()) return memory.status();
  new (memory->get()) Words;
  return LaunchWords(*std::move(memory));
}

void LaunchWords::ClearDone() const {
  std::atomic_ref<int>(words().done).store(0, std::memory_order_relaxed);
}

void LaunchWords::Tell(int number, bool runs) const {
  std::atomic_ref<int>(words().ahead)
      .store(runs ? number : -number, std::memory_order_release);
}

bool LaunchWords::HasLeft(int number) const {
  return std::atomic_ref<int>(words().done).load(std::memory_order_relaxed) ==
         -number;
}

absl::StatusOr<bool> LaunchWords::Await(int number, int later,
                                        cudaStream_t stream) const {
  const std::atomic_ref<int> done(words().done);
  const auto look = [&] {
    return OutcomeOf(done.load(std::memory_order_acquire), number, later);
  };
  // The stream is asked too: after an error nobody would say "done".
  constexpr unsigned kLooksAQuery = 1 << 16;
  LaunchOutcome outcome = look();
  for (unsigned looks = 1; outcome == LaunchOutcome::kPending; ++looks) {
    const cudaError_t state =
        looks % kLooksAQuery == 0 ? cudaStreamQuery(stream) : cudaErrorNotReady;
    outcome = look();
    if (state == cudaErrorNotReady || outcome != LaunchOutcome::kPending) {
      continue;
    }
    absl::Status status = ToStatus(state, "running a batch");
    if (!status.ok()) return status;
    return absl::InternalError("running a batch: it ended without a result");
  }
  return outcome == LaunchOutcome::kRan;
}

}  // namespace sparse_ffn::cuda
