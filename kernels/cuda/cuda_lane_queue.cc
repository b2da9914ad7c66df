// What CudaLane queues on its stream.
#include "kernels/cuda/cuda_lane.h"

namespace sparse_ffn::cuda {
namespace {

// Up to here a kernel copies sooner than the copy engine, out also because the
// host need not wait for the stream then.
constexpr size_t kMostCopiedIn = size_t{256} << 10;
constexpr size_t kMostCopiedOut = size_t{1} << 20;

}  // namespace

absl::Status CudaLane::Queue(const CudaLayer& layer, int tokens, FfnPath path) {
  if (path != FfnPath::kFused) return QueueSteps(layer, tokens, path);
  if (HasPasses(tokens, path)) return QueuePasses(layer, tokens);
  return steps_->FusesAllSteps(tokens) ? QueueFused(layer, tokens)
                                       : QueueFusedBatch(layer, tokens);
}

absl::Status CudaLane::QueueFused(const CudaLayer& layer, int tokens) {
  ExpectAnnouncement();
  const auto graph = graphs_.find({&layer, tokens});
  if (graph == graphs_.end()) return QueueFusedLaunches(layer, tokens);
  return ToStatus(cudaGraphLaunch(graph->second.get(), stream_.get()),
                  "launching the fused FFN");
}

absl::Status CudaLane::QueueFusedLaunches(const CudaLayer& layer, int tokens,
                                          const AheadParams& ahead) {
  const bool fetches = CudaSteps::UsesFusedBulk(model_, tokens);
  absl::Status status = fetches ? absl::OkStatus() : CopyIn(tokens);
  if (!status.ok()) return status;
  CudaSteps::FusedBuffers buffers = BuffersFor(0, tokens, DirectResult());
  buffers.ahead = ahead;
  return steps_->Fused(layer, tokens, buffers);
}

void CudaLane::ExpectAnnouncement() {
  announces_ = true;
  words_->ClearDone();
}

absl::Status CudaLane::QueueFusedBatch(const CudaLayer& layer, int tokens,
                                       const AheadParams& ahead) {
  absl::Status status = CopyIn(tokens, ahead);
  if (!status.ok()) return status;
  const bool direct = IsDirect(tokens, FfnPath::kFused);
  if (direct && ahead.number == 0) ExpectAnnouncement();
  CudaSteps::FusedBuffers buffers = BuffersFor(
      0, tokens, direct ? DirectResult() : CudaSteps::ResultBuffers());
  buffers.ahead.number = ahead.number;
  status = steps_->FusedBatch(layer, tokens, buffers);
  if (direct || !status.ok()) return status;
  return CopyOut(tokens, ahead.number);
}

absl::Status CudaLane::QueuePasses(const CudaLayer& layer, int tokens) {
  absl::Status status = CopyIn(tokens);
  for (size_t i = 0; i < passes_.Count(tokens) && status.ok(); ++i) {
    const size_t first = passes_.First(i);
    const auto count = static_cast<int>(passes_.Tokens(i, tokens));
    const CudaSteps::FusedBuffers buffers =
        BuffersFor(first, count,
                   {steps_->output() + first * model_.config.hidden_size,
                    pass_counters() + passes_.FirstCounter(i), nullptr});
    status = steps_->FusesAllSteps(count)
                 ? steps_->Fused(layer, count, buffers)
                 : steps_->FusedBatch(layer, count, buffers);
  }
  if (!status.ok()) return status;
  return CopyOut(tokens);
}

CudaSteps::FusedBuffers CudaLane::BuffersFor(
    size_t first, int tokens, const CudaSteps::ResultBuffers& result) {
  // Those launches fetch by themselves.
  const bool fetches = CudaSteps::UsesFusedBulk(model_, tokens);
  CudaSteps::FusedBuffers buffers;
  buffers.hidden_states = fetches
                              ? input(first + 1).row(first)
                              : steps_->hidden_states(static_cast<int>(first));
  buffers.result = result;
  return buffers;
}

absl::Status CudaLane::CopyIn(int tokens, const AheadParams& ahead) {
  SmallCopyParams params;
  params.from = pinned_input_.get();
  params.to = steps_->hidden_states();
  params.done = nullptr;
  params.ahead = ahead;
  const size_t bytes = input(tokens).bytes();
  // The copy engine waits for no word.
  return Copy(params, bytes, bytes <= kMostCopiedIn || ahead.number != 0,
              "copying the hidden states in");
}

absl::Status CudaLane::CopyOut(int tokens, int ahead_number) {
  const size_t bytes = steps_->ResultBytes(tokens);
  const bool by_kernel = bytes <= kMostCopiedOut || ahead_number != 0;
  // A timed one is over with its last event; what is launched ahead is not that
  // one.
  const bool announces = by_kernel && (!timed_ || ahead_number != 0);
  if (announces && ahead_number == 0) ExpectAnnouncement();
  SmallCopyParams params;
  params.from = steps_->result();
  params.to = pinned_result_.get();
  params.done = announces ? words_->done() : nullptr;
  params.ahead.number = ahead_number;
  return Copy(params, bytes, by_kernel, "copying the result out");
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
  if (!status.ok()) return status;
  status = CopyOut(tokens);
  status.Update(Record(kCopiedOut));
  return status;
}

absl::Status CudaLane::Copy(SmallCopyParams params, size_t bytes,
                            bool by_kernel, const char* what) {
  if (!by_kernel) {
    return ToStatus(cudaMemcpyAsync(params.to, params.from, bytes,
                                    cudaMemcpyDefault, stream_.get()),
                    what);
  }
  params.state = steps_->fused_state();
  params.packs = static_cast<int>((bytes + 15) / 16);
  params.device = model_.device_traits;
  return ToStatus(LaunchSmallCopy(params, stream_.get()), what);
}

absl::Status CudaLane::Record(Mark mark) {
  if (!timed_) return absl::OkStatus();
  return ToStatus(cudaEventRecord(events_[mark].get(), stream_.get()),
                  "cudaEventRecord");
}

CudaSteps::ResultBuffers CudaLane::DirectResult() const {
  return {pinned_output(), pinned_counters(0), words_->done()};
}

}  // namespace sparse_ffn::cuda
