#include "client/load/arrival_schedule.h"

namespace sparse_ffn {

ArrivalSchedule::ArrivalSchedule(double rate_per_second, uint64_t seed,
                                 int64_t start_ns)
    : random_(seed), interval_seconds_(rate_per_second), start_ns_(start_ns) {
  Advance();
}

std::optional<int64_t> ArrivalSchedule::TakeDue(int64_t now_ns) {
  if (next_ns_ > now_ns) return std::nullopt;
  const int64_t taken = next_ns_;
  Advance();
  return taken;
}

void ArrivalSchedule::Advance() {
  offset_ns_ += interval_seconds_(random_) * 1e9;
  next_ns_ = start_ns_ + static_cast<int64_t>(offset_ns_);
}

}  // namespace sparse_ffn
