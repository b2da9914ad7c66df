#include "client/load/load_client.h"

#include <sched.h>

#include <algorithm>

#include "client/reply_check.h"

namespace sparse_ffn {
namespace {

constexpr int64_t kMillisecondNs = 1'000'000;
// After an error, doubled with each further one: a server that is full is not
// to be kept busy with refusing.
constexpr int64_t kErrorPauseNs = 10 * kMillisecondNs;
constexpr int64_t kMostErrorPauseNs = 1000 * kMillisecondNs;
constexpr int64_t kIdlePollNs = 50 * kMillisecondNs;
// gRPC and epoll each round a wait up to whole milliseconds: a thread that
// must send at a given moment stops sleeping this long before.
constexpr int64_t kSpinBeforeNs = 3 * kMillisecondNs;

void Bump(std::atomic<uint64_t>* counter, uint64_t by) {
  counter->store(counter->load(std::memory_order_relaxed) + by,
                 std::memory_order_relaxed);
}

}  // namespace

LoadClient::LoadClient(const std::shared_ptr<grpc::Channel>& channel,
                       const LoadPlan& plan, const InputRows& inputs,
                       size_t index)
    : plan_(plan),
      inputs_(inputs),
      quota_(plan.requests / plan.clients +
             (index < plan.requests % plan.clients ? 1 : 0)),
      random_(plan.seed + index),
      slots_(plan.in_flight),
      calls_(plan.stream
                 ? NewStreamCalls(channel, plan.in_flight)
                 : NewUnaryCalls(channel, plan.in_flight, plan.timeout)),
      // Clients start at different rows and layers.
      next_row_(index * 7919 * plan.tokens),
      next_layer_(index) {
  for (size_t i = 0; i < slots_.size(); ++i) {
    v1::ForwardRequest* request = calls_->request(i);
    request->set_tokens(static_cast<uint32_t>(plan.tokens));
    request->set_dtype(plan.dtype);
    request->set_execution(plan.execution);
  }
  if (plan.shape == LoadShape::kOpen) {
    schedule_.emplace(plan.rate_per_second, plan.seed + index, plan.start_ns);
  }
}

void LoadClient::Run(const std::atomic<bool>* stop) {
  stop_ = stop;
  int64_t give_up_ns = INT64_MAX;
  while (true) {
    int64_t now_ns = SteadyNowNs();
    if (!given_up_) StartDue(now_ns);
    const bool more = !given_up_ && MoreToStart(now_ns);
    if (!more && in_flight_ == 0) break;
    if (give_up_ns == INT64_MAX && (!more || now_ns >= plan_.end_ns)) {
      give_up_ns = now_ns + plan_.patience_ns;
    }
    if (now_ns > give_up_ns && !given_up_) GiveUp();
    const int64_t deadline_ns = PollDeadline(now_ns);
    const std::vector<Completion>& completions = calls_->Poll(deadline_ns);
    // Spinning must not starve a server on the same few cores.
    if (completions.empty() && deadline_ns == 0) sched_yield();
    for (const Completion& completion : completions) OnCompletion(completion);
  }
}

bool LoadClient::MoreToStart(int64_t now_ns) const {
  if (stop_->load(std::memory_order_relaxed)) return false;
  if (result_.arrivals >= quota_) return false;
  return (schedule_ ? schedule_->next_ns() : now_ns) < plan_.end_ns;
}

void LoadClient::StartDue(int64_t now_ns) {
  if (in_flight_ == slots_.size()) return;
  for (size_t i = 0; i < slots_.size() && MoreToStart(now_ns); ++i) {
    if (slots_[i].in_flight || slots_[i].ready_ns > now_ns) continue;
    if (!schedule_) {
      Start(i, now_ns);
      now_ns = SteadyNowNs();  // Starting many takes a while.
      continue;
    }
    const std::optional<int64_t> intended_ns = schedule_->TakeDue(now_ns);
    if (!intended_ns) return;
    Start(i, *intended_ns);
  }
}

void LoadClient::Start(size_t index, int64_t intended_ns) {
  Slot& slot = slots_[index];
  slot.layer_index = NextLayerIndex(slot);
  slot.intended_ns = intended_ns;
  if (slot.layer_index == 0) slot.token_start_ns = intended_ns;
  slot.measured = intended_ns >= plan_.measure_ns;
  slot.in_flight = true;
  ++in_flight_;
  if (slot.measured) ++result_.arrivals;
  v1::ForwardRequest* request = calls_->request(index);
  request->set_layer(plan_.layers[slot.layer_index]);
  const absl::string_view rows = inputs_.Request(next_row_);
  request->mutable_hidden_states()->assign(rows.data(), rows.size());
  next_row_ += plan_.tokens;
  calls_->Start(index);
}

size_t LoadClient::NextLayerIndex(const Slot& slot) {
  // A slot that decodes has its next layer set already.
  if (plan_.shape == LoadShape::kDecode) return slot.layer_index;
  if (plan_.layer_order == LayerOrder::kRandom) {
    return random_() % plan_.layers.size();
  }
  return next_layer_++ % plan_.layers.size();
}

int64_t LoadClient::PollDeadline(int64_t now_ns) const {
  if (plan_.busy_poll && !given_up_) return 0;
  int64_t wake_ns = now_ns + kIdlePollNs;
  if (in_flight_ == slots_.size() || !MoreToStart(now_ns)) return wake_ns;
  if (schedule_) {
    wake_ns = std::min(wake_ns, schedule_->next_ns() - kSpinBeforeNs);
    return wake_ns > now_ns ? wake_ns : 0;
  }
  for (const Slot& slot : slots_) {
    if (!slot.in_flight) wake_ns = std::min(wake_ns, slot.ready_ns);
  }
  return wake_ns;
}

void LoadClient::OnCompletion(const Completion& completion) {
  const int64_t now_ns = SteadyNowNs();
  Slot& slot = slots_[completion.slot];
  slot.in_flight = false;
  --in_flight_;
  const absl::Status status =
      completion.status.ok()
          ? CheckReply(*calls_->request(completion.slot), *completion.reply)
          : completion.status;
  if (status.ok()) {
    OnSuccess(completion, now_ns, &slot);
  } else {
    OnError(status, now_ns, &slot);
  }
}

void LoadClient::OnSuccess(const Completion& completion, int64_t now_ns,
                           Slot* slot) {
  slot->pause_ns = 0;
  const uint64_t latency_ns = static_cast<uint64_t>(now_ns - slot->intended_ns);
  Bump(&live_.completed, 1);
  Bump(&live_.latency_sum_ns, latency_ns);
  if (now_ns >= plan_.measure_ns && now_ns < plan_.end_ns) ++result_.completed;
  if (slot->measured) {
    result_.latency.Record(latency_ns);
    result_.server.Add(completion.reply->stats());
    result_.last_completion_ns = now_ns;
  }
  if (plan_.shape != LoadShape::kDecode) return;
  if (++slot->layer_index < plan_.layers.size()) return;
  slot->layer_index = 0;
  if (slot->token_start_ns >= plan_.measure_ns) {
    result_.token_latency.Record(
        static_cast<uint64_t>(now_ns - slot->token_start_ns));
  }
}

void LoadClient::OnError(const absl::Status& status, int64_t now_ns,
                         Slot* slot) {
  slot->layer_index = 0;  // The token is abandoned.
  if (given_up_ && absl::IsCancelled(status)) {
    if (slot->measured) ++result_.cut_off;
    return;
  }
  Bump(&live_.errors, 1);
  if (slot->measured) {
    result_.AddError(status);
    result_.last_completion_ns = now_ns;
  }
  if (schedule_) return;
  slot->pause_ns =
      std::clamp(2 * slot->pause_ns, kErrorPauseNs, kMostErrorPauseNs);
  slot->ready_ns = now_ns + slot->pause_ns;
}

void LoadClient::GiveUp() {
  given_up_ = true;
  calls_->CancelAll();
  if (!schedule_) return;
  while (MoreToStart(0)) {
    if (schedule_->next_ns() >= plan_.measure_ns) {
      ++result_.arrivals;
      ++result_.unsent;
    }
    schedule_->TakeDue(INT64_MAX);
  }
}

}  // namespace sparse_ffn
