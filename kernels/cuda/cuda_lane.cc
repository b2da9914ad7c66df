#include "kernels/cuda/cuda_lane.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/launch_outcome.h"
#include "kernels/cuda/path_choice.h"

namespace sparse_ffn::cuda {
namespace {

using Clock = std::chrono::steady_clock;

// The hidden states of more take as long to come as a launch.
constexpr size_t kMostAheadTokens = 16;

}  // namespace

absl::StatusOr<std::unique_ptr<FfnLane>> CudaLane::New(const CudaModel& model) {
  std::unique_ptr<CudaLane> lane(new CudaLane(model));
  absl::Status status = lane->Init();
  if (!status.ok()) return status;
  return lane;
}

CudaLane::CudaLane(const CudaModel& model)
    : model_(model),
      passes_(model.config.max_batch_tokens, CudaSteps::PassTokens(model)),
      forecast_(Foreseeable(model)) {
  ++model_.lanes;
}

CudaLane::~CudaLane() {
  DismissAhead();
  if (stream_ != nullptr) cudaStreamSynchronize(stream_.get());
  --model_.lanes;
}

std::vector<BatchForecast::Batch> CudaLane::Foreseeable(
    const CudaModel& model) {
  std::vector<BatchForecast::Batch> batches;
  const int most = static_cast<int>(
      std::min(kMostAheadTokens, CudaSteps::PassTokens(model)));
  for (int tokens = 1; tokens <= most; ++tokens) {
    const bool waits = CudaSteps::UsesFusedBulk(model, tokens) ||
                       (tokens > 1 && CudaSteps::StreamsRows(model, tokens));
    if (!waits) continue;
    for (const auto& [layer, weights] : model.layers) {
      batches.emplace_back(layer, tokens);
    }
  }
  return batches;
}

absl::Status CudaLane::Init() {
  absl::Status status = ToStatus(cudaSetDevice(model_.device), "cudaSetDevice");
  if (!status.ok()) return status;
  auto stream = NewStream();
  if (!stream.ok()) return stream.status();
  stream_ = *std::move(stream);
  for (Event& event : events_) {
    auto made = NewEvent();
    if (!made.ok()) return made.status();
    event = *std::move(made);
  }
  auto steps = CudaSteps::New(model_, stream_.get());
  if (!steps.ok()) return steps.status();
  steps_ = *std::move(steps);
  const size_t tokens = model_.config.max_batch_tokens;
  for (auto [pinned, bytes] :
       {std::pair(&pinned_input_, input(tokens).bytes()),
        std::pair(&pinned_result_, steps_->ResultBytes(tokens)),
        std::pair(&pinned_pass_counters_,
                  passes_.Counters(tokens) * sizeof(int))}) {
    auto made = NewPinnedMemory(AlignUp(bytes));
    if (!made.ok()) return made.status();
    *pinned = *std::move(made);
  }
  auto words = LaunchWords::New();
  if (!words.ok()) return words.status();
  words_ = *std::move(words);
  RecordGraphs();
  return absl::OkStatus();
}

void CudaLane::RecordGraphs() {
  const auto most = static_cast<int>(
      std::min(model_.config.max_batch_tokens, CudaSteps::PassTokens(model_)));
  for (int tokens = 1; tokens <= most; ++tokens) {
    if (!MayFuse(model_, tokens) || !steps_->FusesAllSteps(tokens)) {
      return;
    }
    for (const auto& [number, layer] : model_.layers) {
      const CudaLayer& weights = layer;
      auto graph = RecordGraph(
          stream_.get(), [&] { return QueueFusedLaunches(weights, tokens); });
      // Without, each launch is a call of its own.
      if (!graph.ok()) return;
      graphs_[{&weights, tokens}] = *std::move(graph);
    }
  }
}

bool CudaLane::MayFuse(const CudaModel& model, size_t tokens) {
  const auto count =
      static_cast<int>(std::min(tokens, CudaSteps::PassTokens(model)));
  const bool bulk = CudaSteps::UsesFusedBulk(model, count);
  const bool takes =
      count == 1 || bulk || CudaSteps::TakesFusedBatch(model, count);
  return UsesFused(model.sparse_form, takes, /*fast=*/bulk || count > 1);
}

Matrix CudaLane::input(size_t tokens) {
  return {pinned_input_.get(), tokens, model_.config.hidden_size,
          model_.config.weights_dtype};
}

absl::StatusOr<FfnResult> CudaLane::Run(int layer, size_t tokens,
                                        Execution execution) {
  const Clock::time_point start = Clock::now();
  const auto found = model_.layers.find(layer);
  if (found == model_.layers.end()) {
    return absl::NotFoundError(absl::StrCat("no layer ", layer));
  }
  if (tokens < 1 || tokens > model_.config.max_batch_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokens: expected 1 to ", model_.config.max_batch_tokens,
                     ", got ", tokens));
  }
  const CudaLayer& weights = found->second;
  const uint64_t index = batches_++;
  timed_ = IsTimed(index);
  announces_ = false;
  launched_ahead_ = false;
  // Neither estimates nor measured times decide there.
  if (model_.config.deterministic && execution == Execution::kAuto) {
    execution = Execution::kSparse;
  }
  const bool fused = MayFuse(model_, tokens);
  const size_t pass_tokens = CudaSteps::PassTokens(model_);
  const float expected =
      fused ? weights.union_density.ExpectedOfPass(tokens, pass_tokens)
            : weights.union_density.Expected(tokens);
  FfnPath path = ChoosePath(execution, tokens, model_.config.hidden_size,
                            expected, fused, model_.path_costs);
  if (path == FfnPath::kFused && StepsInstead(index, tokens)) {
    path = FfnPath::kSparse;
  }
  absl::Status status = ToStatus(cudaSetDevice(model_.device), "cudaSetDevice");
  if (status.ok()) status = Compute(weights, {layer, tokens}, path);
  if (!status.ok()) {
    return absl::InternalError(absl::StrCat("layer ", layer, ", ", tokens,
                                            " tokens: ", status.message()));
  }
  FfnResult result = Result(tokens, path);
  weights.union_density.Update(
      result.stats.passes.empty() ? tokens : pass_tokens,
      static_cast<float>(result.stats.union_active_neurons) /
          static_cast<float>(model_.config.intermediate_size));
  result.stats.compute_ns = static_cast<uint64_t>(
      std::chrono::nanoseconds(Clock::now() - start).count());
  return result;
}

absl::Status CudaLane::Compute(const CudaLayer& layer,
                               BatchForecast::Batch batch, FfnPath path) {
  const auto tokens = static_cast<int>(batch.second);
  const bool fused = path == FfnPath::kFused;
  const std::optional<Ahead> ahead = std::exchange(ahead_, std::nullopt);
  const bool foreseen = ahead.has_value() && fused && ahead->batch == batch &&
                        !words_->HasLeft(ahead->number);
  if (ahead.has_value()) words_->Tell(ahead->number, foreseen);
  // A timed one in steps stands for fused ones.
  const bool alike = fused || (timed_ && path == FfnPath::kSparse);
  forecast_.Add(alike ? std::optional(batch) : std::nullopt);
  if (foreseen) {
    const absl::StatusOr<bool> ran = AwaitAhead(*ahead);
    if (!ran.ok() || *ran) return ran.status();
  }
  absl::Status status = Queue(layer, tokens, path);
  if (!status.ok()) return status;
  counter_offset_ = CounterOffset(tokens, path);
  // Else the stream is waited for, which it would keep from ending.
  const absl::Status launched = announces_ ? LaunchAhead() : absl::OkStatus();
  status = Await();
  status.Update(launched);
  return status;
}

absl::StatusOr<bool> CudaLane::AwaitAhead(const Ahead& ahead) {
  counter_offset_ = ahead.counter_offset;
  const absl::Status launched = LaunchAhead();
  absl::StatusOr<bool> ran = AwaitDone(ahead.number);
  launched_ahead_ = ran.ok() && *ran;
  // The next one must not hold up the launch that now takes its place.
  if (!launched_ahead_) DismissAhead();
  return launched.ok() ? ran : launched;
}

absl::Status CudaLane::LaunchAhead() {
  const std::optional<BatchForecast::Batch> next = forecast_.Next();
  if (!next.has_value() || model_.config.launch_ahead_us == 0 ||
      model_.lanes != 1 || !MayFuse(model_, next->second) ||
      StepsInstead(batches_, next->second)) {
    return absl::OkStatus();
  }
  constexpr int kFirst = 2;
  ahead_number_ = ahead_number_ == std::numeric_limits<int>::max()
                      ? kFirst
                      : ahead_number_ + 1;
  ahead_ = {*next, ahead_number_, 0};
  constexpr unsigned kNanoseconds = 1000;
  const AheadParams ahead = {words_->ahead(), ahead_number_,
                             kNanoseconds * model_.config.launch_ahead_us};
  const CudaLayer& layer = model_.layers.at(next->first);
  const auto tokens = static_cast<int>(next->second);
  absl::Status status = steps_->FusesAllSteps(tokens)
                            ? QueueFusedLaunches(layer, tokens, ahead)
                            : QueueFusedBatch(layer, tokens, ahead);
  ahead_->counter_offset = CounterOffset(tokens, FfnPath::kFused);
  return status;
}

void CudaLane::DismissAhead() {
  if (ahead_.has_value()) words_->Tell(ahead_->number, /*runs=*/false);
  ahead_.reset();
}

absl::Status CudaLane::Await() {
  if (announces_) return AwaitDone(kNotAhead).status();
  return ToStatus(cudaStreamSynchronize(stream_.get()), "running a batch");
}

uint64_t CudaLane::Nanoseconds(Mark from, Mark to) const {
  if (!timed_) return 0;
  float milliseconds = 0;
  const cudaError_t error = cudaEventElapsedTime(
      &milliseconds, events_[from].get(), events_[to].get());
  return error == cudaSuccess ? static_cast<uint64_t>(milliseconds * 1e6F) : 0;
}

float* CudaLane::pinned_output() const {
  return reinterpret_cast<float*>(pinned_result_.get() +
                                  CudaSteps::CounterBytes(model_.config));
}

int* CudaLane::pinned_counters(size_t offset) const {
  return reinterpret_cast<int*>(pinned_result_.get() + offset);
}

FfnResult CudaLane::Result(size_t tokens, FfnPath path) {
  const bool has_passes = HasPasses(tokens, path);
  const auto* counters = reinterpret_cast<const uint32_t*>(
      has_passes ? pass_counters() : pinned_counters(counter_offset_));
  FfnResult result;
  result.output = {pinned_output(), tokens, model_.config.hidden_size,
                   DataType::kFloat32};
  if (has_passes) {
    passes_.Collect(counters, tokens, &result.stats);
  } else {
    result.stats.active_neurons = absl::MakeConstSpan(counters + 1, tokens);
    result.stats.union_active_neurons = counters[0];
  }
  result.stats.path = path;
  result.stats.launched_ahead = launched_ahead_;
  if (path == FfnPath::kFused) return result;
  result.stats.copy_in_ns = Nanoseconds(kStart, kCopiedIn);
  result.stats.gate_ns = Nanoseconds(kCopiedIn, kGateDone);
  result.stats.up_ns = Nanoseconds(kGateDone, kUpDone);
  result.stats.down_ns = Nanoseconds(kUpDone, kDownDone);
  result.stats.copy_out_ns = Nanoseconds(kDownDone, kCopiedOut);
  return result;
}

}  // namespace sparse_ffn::cuda
