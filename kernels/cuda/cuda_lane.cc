#include "kernels/cuda/cuda_lane.h"

#include <atomic>
#include <chrono>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/path_choice.h"

namespace sparse_ffn::cuda {
namespace {

using Clock = std::chrono::steady_clock;

// Up to here a kernel copies faster than the copy engine starts.
constexpr size_t kSmallCopyBytes = size_t{256} << 10;

}  // namespace

absl::StatusOr<std::unique_ptr<FfnLane>> CudaLane::New(const CudaModel& model) {
  std::unique_ptr<CudaLane> lane(new CudaLane(model));
  absl::Status status = lane->Init();
  if (!status.ok()) return status;
  return lane;
}

CudaLane::~CudaLane() {
  if (stream_ != nullptr) cudaStreamSynchronize(stream_.get());
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
        std::pair(&pinned_done_, sizeof(int))}) {
    auto made = NewPinnedMemory(AlignUp(bytes));
    if (!made.ok()) return made.status();
    *pinned = *std::move(made);
  }
  RecordGraphs();
  return absl::OkStatus();
}

void CudaLane::RecordGraphs() {
  const auto most = static_cast<int>(model_.config.max_batch_tokens);
  for (int tokens = 1; tokens <= most; ++tokens) {
    if (!MayFuse(model_, tokens, /*timed=*/false) ||
        !steps_->FusesAllSteps(tokens)) {
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

bool CudaLane::MayFuse(const CudaModel& model, size_t tokens, bool timed) {
  const auto count = static_cast<int>(tokens);
  const bool bulk = CudaSteps::UsesFusedBulk(model, count);
  const bool takes =
      tokens == 1 || bulk ||
      FusedGatedUpTakes(model.device_traits, count,
                        static_cast<int>(model.config.hidden_size),
                        static_cast<int>(model.config.intermediate_size),
                        CudaSteps::UsesOrderedBatch(model));
  return UsesFused(model.sparse_form, takes, /*fast=*/bulk || tokens > 1,
                   timed);
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
  timed_ = !model_.config.deterministic && batches_++ % kTimedEvery == 0;
  const FfnPath path =
      ChoosePath(execution, tokens, model_.config.hidden_size,
                 weights.union_density.Expected(tokens),
                 MayFuse(model_, tokens, timed_), model_.path_costs);
  absl::Status status = ToStatus(cudaSetDevice(model_.device), "cudaSetDevice");
  if (status.ok()) status = Queue(weights, static_cast<int>(tokens), path);
  if (status.ok()) status = Await(static_cast<int>(tokens), path);
  if (!status.ok()) {
    return absl::InternalError(absl::StrCat("layer ", layer, ", ", tokens,
                                            " tokens: ", status.message()));
  }
  FfnResult result = Result(tokens, path);
  weights.union_density.Update(
      tokens, static_cast<float>(result.stats.union_active_neurons) /
                  static_cast<float>(model_.config.intermediate_size));
  result.stats.compute_ns = static_cast<uint64_t>(
      std::chrono::nanoseconds(Clock::now() - start).count());
  return result;
}

absl::Status CudaLane::Queue(const CudaLayer& layer, int tokens, FfnPath path) {
  if (path != FfnPath::kFused) return QueueSteps(layer, tokens, path);
  return IsDirect(tokens, path) ? QueueFused(layer, tokens)
                                : QueueFusedBatch(layer, tokens);
}

absl::Status CudaLane::QueueFused(const CudaLayer& layer, int tokens) {
  *pinned_done() = 0;
  const auto graph = graphs_.find({&layer, tokens});
  if (graph == graphs_.end()) return QueueFusedLaunches(layer, tokens);
  return ToStatus(cudaGraphLaunch(graph->second.get(), stream_.get()),
                  "launching the fused FFN");
}

absl::Status CudaLane::QueueFusedLaunches(const CudaLayer& layer, int tokens) {
  const bool fetches = CudaSteps::UsesFusedBulk(model_, tokens);
  absl::Status status = fetches ? absl::OkStatus() : CopyIn(tokens);
  CudaSteps::FusedBuffers buffers;
  buffers.hidden_states =
      fetches ? pinned_input_.get() : steps_->hidden_states();
  buffers.output = pinned_output();
  buffers.counters = pinned_counters(tokens, FfnPath::kFused);
  buffers.done = pinned_done();
  status.Update(steps_->Fused(layer, tokens, buffers));
  return status;
}

absl::Status CudaLane::Await(int tokens, FfnPath path) {
  if (IsDirect(tokens, path)) return AwaitDone();
  return ToStatus(cudaStreamSynchronize(stream_.get()), "running a batch");
}

absl::Status CudaLane::AwaitDone() const {
  // The stream is asked too: after an error nobody would say "done".
  constexpr unsigned kLooksAQuery = 1 << 16;
  const std::atomic_ref<int> done(*pinned_done());
  for (unsigned looks = 1; done.load(std::memory_order_acquire) == 0; ++looks) {
    if (looks % kLooksAQuery != 0) continue;
    const cudaError_t state = cudaStreamQuery(stream_.get());
    if (state != cudaErrorNotReady) return ToStatus(state, "running a batch");
  }
  return absl::OkStatus();
}

absl::Status CudaLane::QueueFusedBatch(const CudaLayer& layer, int tokens) {
  absl::Status status = CopyIn(tokens);
  status.Update(steps_->FusedBatch(layer, tokens));
  status.Update(CopyOut(tokens));
  return status;
}

absl::Status CudaLane::CopyIn(int tokens) {
  return Copy(pinned_input_.get(), steps_->hidden_states(),
              input(tokens).bytes(), "copying the hidden states in");
}

absl::Status CudaLane::CopyOut(int tokens) {
  return Copy(steps_->result(), pinned_result_.get(),
              steps_->ResultBytes(tokens), "copying the result out");
}

absl::Status CudaLane::QueueSteps(const CudaLayer& layer, int tokens,
                                  FfnPath path) {
  absl::Status status = Record(kStart);
  status.Update(CopyIn(tokens));
  status.Update(Record(kCopiedIn));
  if (path == FfnPath::kSparse) {
    status.Update(steps_->Gate(layer, tokens));
    status.Update(Record(kGateDone));
    status.Update(steps_->SparseUp(layer, tokens));
    status.Update(Record(kUpDone));
    status.Update(steps_->SparseDown(layer, tokens));
  } else {
    status.Update(steps_->DenseGate(layer, tokens));
    status.Update(Record(kGateDone));
    status.Update(steps_->Select(tokens));
    status.Update(steps_->DenseUp(layer, tokens));
    status.Update(Record(kUpDone));
    status.Update(steps_->DenseDown(layer, tokens));
  }
  status.Update(Record(kDownDone));
  status.Update(CopyOut(tokens));
  status.Update(Record(kCopiedOut));
  return status;
}

absl::Status CudaLane::Copy(const void* from, void* to, size_t bytes,
                            const char* what) {
  if (bytes > kSmallCopyBytes) {
    return ToStatus(
        cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_.get()),
        what);
  }
  SmallCopyParams params;
  params.from = from;
  params.to = to;
  params.packs = static_cast<int>((bytes + 15) / 16);
  params.device = model_.device_traits;
  return ToStatus(LaunchSmallCopy(params, stream_.get()), what);
}

absl::Status CudaLane::Record(Mark mark) {
  if (!timed_) return absl::OkStatus();
  return ToStatus(cudaEventRecord(events_[mark].get(), stream_.get()),
                  "cudaEventRecord");
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

int* CudaLane::pinned_counters(size_t tokens, FfnPath path) const {
  return reinterpret_cast<int*>(
      pinned_result_.get() +
      (IsDirect(tokens, path) ? 0 : steps_->counter_offset()));
}

FfnResult CudaLane::Result(size_t tokens, FfnPath path) const {
  const auto* counters =
      reinterpret_cast<const uint32_t*>(pinned_counters(tokens, path));
  FfnResult result;
  result.output = {pinned_output(), tokens, model_.config.hidden_size,
                   DataType::kFloat32};
  result.stats.active_neurons = absl::MakeConstSpan(counters + 1, tokens);
  result.stats.union_active_neurons = counters[0];
  result.stats.path = path;
  if (path == FfnPath::kFused) return result;
  result.stats.copy_in_ns = Nanoseconds(kStart, kCopiedIn);
  result.stats.gate_ns = Nanoseconds(kCopiedIn, kGateDone);
  result.stats.up_ns = Nanoseconds(kGateDone, kUpDone);
  result.stats.down_ns = Nanoseconds(kUpDone, kDownDone);
  result.stats.copy_out_ns = Nanoseconds(kDownDone, kCopiedOut);
  return result;
}

}  // namespace sparse_ffn::cuda
