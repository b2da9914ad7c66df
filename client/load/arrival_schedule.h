// When the requests of an open loop are meant to start, whatever the server
// does: a Poisson process. Latency counted from these times, not from the
// moment of sending, includes the wait of every request that a stalled server
// kept from being sent.
#ifndef SPARSE_FFN_CLIENT_LOAD_ARRIVAL_SCHEDULE_H_
#define SPARSE_FFN_CLIENT_LOAD_ARRIVAL_SCHEDULE_H_

#include <cstdint>
#include <optional>
#include <random>

namespace sparse_ffn {

// Times are nanoseconds on one clock of the caller's choice. One thread.
class ArrivalSchedule {
 public:
  // `rate_per_second` is positive. Equal seeds give equal schedules. The first
  // arrival is a random interval after `start_ns`.
  ArrivalSchedule(double rate_per_second, uint64_t seed, int64_t start_ns);

  // Intended start of the next arrival.
  int64_t next_ns() const { return next_ns_; }

  // Intended start of the oldest arrival not yet taken if it is due at
  // `now_ns`, and moves on to the next; nothing where none is due. However
  // late it is called, no arrival is dropped or moved.
  std::optional<int64_t> TakeDue(int64_t now_ns);

 private:
  void Advance();

  std::mt19937_64 random_;
  std::exponential_distribution<double> interval_seconds_;
  double offset_ns_ = 0;  // Of the next arrival since start_ns_.
  int64_t start_ns_;
  int64_t next_ns_ = 0;
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_LOAD_ARRIVAL_SCHEDULE_H_
