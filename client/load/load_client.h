// One client of a load: one thread with a connection and a completion queue of
// its own, which keeps some requests in flight.
#ifndef SPARSE_FFN_CLIENT_LOAD_LOAD_CLIENT_H_
#define SPARSE_FFN_CLIENT_LOAD_LOAD_CLIENT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "absl/time/time.h"
#include "client/load/arrival_schedule.h"
#include "client/load/forward_calls.h"
#include "client/load/input_rows.h"
#include "client/load/load_result.h"
#include "sparse_ffn/v1/ffn.pb.h"

namespace sparse_ffn {

enum class LoadShape {
  kClosed,  // The next request when one is answered.
  kOpen,    // Requests start when a Poisson process says so.
  kDecode,  // As kClosed; a token goes through all layers one by one.
};

enum class LayerOrder { kInTurn, kRandom };

// What every client does. Times are nanoseconds on the steady clock.
struct LoadPlan {
  LoadShape shape = LoadShape::kClosed;
  bool stream = false;
  bool busy_poll = false;  // Never sleeps while waiting for a reply.
  size_t clients = 1;
  size_t in_flight = 1;        // Most requests of one client at a time.
  size_t tokens = 1;           // Of one request.
  double rate_per_second = 0;  // Of one client; for kOpen.
  std::vector<uint32_t> layers;
  LayerOrder layer_order = LayerOrder::kInTurn;
  v1::DataType dtype = v1::DATA_TYPE_FLOAT32;
  v1::Execution execution = v1::EXECUTION_AUTO;
  absl::Duration timeout = absl::InfiniteDuration();  // Of a unary call.
  uint64_t seed = 0;
  int64_t start_ns = 0;
  int64_t measure_ns = 0;      // End of the warm-up.
  int64_t end_ns = INT64_MAX;  // No request is meant to start from here on.
  // How long what is in flight at the end is waited for before it is cancelled
  // and counts as cut off.
  int64_t patience_ns = 5'000'000'000;
  uint64_t requests = UINT64_MAX;  // Most measured ones of all clients.
};

// What a client has seen so far, warm-up included, for progress lines.
struct LiveCounters {
  std::atomic<uint64_t> completed{0};
  std::atomic<uint64_t> errors{0};
  std::atomic<uint64_t> latency_sum_ns{0};
};

class LoadClient {
 public:
  // `inputs` and `plan` outlive the client. `index` tells clients apart.
  LoadClient(const std::shared_ptr<grpc::Channel>& channel,
             const LoadPlan& plan, const InputRows& inputs, size_t index);

  // Runs the plan to its end, or until `*stop` is set; then waits for what is
  // in flight.
  void Run(const std::atomic<bool>* stop);

  // After Run.
  const LoadResult& result() const { return result_; }
  // From any thread.
  const LiveCounters& live() const { return live_; }

 private:
  struct Slot {
    bool in_flight = false;
    bool measured = false;
    int64_t ready_ns = 0;     // Not before; after an error.
    int64_t pause_ns = 0;     // Of the last error; 0 after a success.
    int64_t intended_ns = 0;  // Start of the request.
    size_t layer_index = 0;
    int64_t token_start_ns = 0;
  };

  bool MoreToStart(int64_t now_ns) const;
  void StartDue(int64_t now_ns);
  void Start(size_t index, int64_t intended_ns);
  size_t NextLayerIndex(const Slot& slot);
  int64_t PollDeadline(int64_t now_ns) const;
  void OnCompletion(const Completion& completion);
  void OnSuccess(const Completion& completion, int64_t now_ns, Slot* slot);
  void OnError(const absl::Status& status, int64_t now_ns, Slot* slot);
  void GiveUp();

  const LoadPlan& plan_;
  const InputRows& inputs_;
  const uint64_t quota_;  // Most measured requests of this client.
  std::mt19937_64 random_;
  std::vector<Slot> slots_;
  std::optional<ArrivalSchedule> schedule_;
  std::unique_ptr<ForwardCalls> calls_;
  size_t in_flight_ = 0;
  size_t next_row_ = 0;
  size_t next_layer_ = 0;
  bool given_up_ = false;
  const std::atomic<bool>* stop_ = nullptr;
  LoadResult result_;
  LiveCounters live_;
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_LOAD_LOAD_CLIENT_H_
