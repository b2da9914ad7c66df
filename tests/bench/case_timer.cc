#include "tests/bench/case_timer.h"

#include <functional>

namespace sparse_ffn::bench {
namespace {

using cuda::CudaLayer;

// Queues work for a layer.
using Work = std::function<absl::Status(const CudaLayer&)>;

class CaseTimer {
 public:
  CaseTimer(TimedModel* model, int tokens)
      : model_(*model), steps_(model->steps()), tokens_(tokens) {}

  absl::Status TimeGate();
  absl::Status TimeSteps();
  absl::Status TimeFused() { return TimeFused(&steps_, &times_.fused); }
  absl::Status TimeDeterministic();
  absl::Status TimeDense();
  const CaseTimes& times() const { return times_; }

 private:
  absl::Status Time(double* microseconds, const Work& work);
  absl::Status TimeFused(cuda::CudaSteps* steps, double* microseconds);
  absl::Status TimeFusedTokens(cuda::CudaSteps* steps, double* microseconds);
  absl::Status Gate(const CudaLayer& layer) const {
    return steps_.Gate(layer, tokens_);
  }
  absl::Status DenseGate(const CudaLayer& layer) const {
    return steps_.DenseGate(layer, tokens_);
  }
  absl::Status Sparse(const CudaLayer& layer) const;
  absl::Status DenseGated(const CudaLayer& layer) const;

  TimedModel& model_;
  cuda::CudaSteps& steps_;
  const int tokens_;
  CaseTimes times_;
};

absl::Status CaseTimer::Time(double* microseconds, const Work& work) {
  auto time = model_.TimeLayers(work);
  if (!time.ok()) return time.status();
  *microseconds = *time;
  return absl::OkStatus();
}

absl::Status CaseTimer::Sparse(const CudaLayer& layer) const {
  absl::Status status = Gate(layer);
  status.Update(steps_.SparseUp(layer, tokens_));
  status.Update(steps_.SparseDown(layer, tokens_));
  return status;
}

// Up to the end of step 2.
absl::Status CaseTimer::DenseGated(const CudaLayer& layer) const {
  absl::Status status = DenseGate(layer);
  status.Update(steps_.DenseUp(layer, tokens_));
  return status;
}

absl::Status CaseTimer::TimeGate() {
  return Time(&times_.gate,
              [this](const CudaLayer& layer) { return Gate(layer); });
}

// Alone, steps 2 and 3 have the active neurons of one layer, and the weights of
// all in turn.
absl::Status CaseTimer::TimeSteps() {
  absl::Status status = Gate(model_.typical_layer());
  status.Update(Time(&times_.step2, [this](const CudaLayer& layer) {
    return steps_.SparseUp(layer, tokens_);
  }));
  status.Update(Time(&times_.step3, [this](const CudaLayer& layer) {
    return steps_.SparseDown(layer, tokens_);
  }));
  status.Update(Time(&times_.steps,
                     [this](const CudaLayer& layer) { return Sparse(layer); }));
  return status;
}

absl::Status CaseTimer::TimeFused(cuda::CudaSteps* steps,
                                  double* microseconds) {
  if (steps->FusesAllSteps(tokens_)) {
    return TimeFusedTokens(steps, microseconds);
  }
  if (!cuda::CudaSteps::TakesFusedBatch(model_.cuda_model(), tokens_)) {
    return absl::OkStatus();
  }
  return Time(microseconds, [&](const CudaLayer& layer) {
    return steps->FusedBatch(layer, tokens_, {steps->hidden_states()});
  });
}

absl::Status CaseTimer::TimeDeterministic() {
  if (tokens_ > cuda::kBatchFormTokens) return absl::OkStatus();
  bool& deterministic = model_.cuda_model().config.deterministic;
  deterministic = true;
  absl::Status status;
  if (cuda::CudaSteps::UsesOrderedBatch(model_.cuda_model())) {
    status = TimeFused(&model_.steps(), &times_.deterministic);
  }
  deterministic = false;
  return status;
}

absl::Status CaseTimer::TimeFusedTokens(cuda::CudaSteps* steps,
                                        double* microseconds) {
  const cuda::CudaModel& cuda_model = model_.cuda_model();
  const size_t hidden_size = cuda_model.config.hidden_size;
  Matrix states = {nullptr, static_cast<size_t>(tokens_), hidden_size,
                   cuda_model.config.weights_dtype};
  // As in a lane, where that form fetches them.
  const bool fetches = cuda::CudaSteps::UsesFusedBulk(cuda_model, tokens_);
  auto input = cuda::NewPinnedMemory(states.bytes());
  if (!input.ok()) return input.status();
  states.data = input->get();
  auto output = cuda::NewDeviceMemory(tokens_ * hidden_size * sizeof(float));
  if (!output.ok()) return output.status();
  auto counters = cuda::NewDeviceMemory((1 + tokens_) * sizeof(int));
  if (!counters.ok()) return counters.status();
  absl::Status status = model_.ReadHiddenStates(states);
  if (!status.ok()) return status;
  const cuda::CudaSteps::FusedBuffers buffers = {
      fetches ? input->get() : steps->hidden_states(),
      {reinterpret_cast<float*>(output->get()),
       reinterpret_cast<int*>(counters->get()), nullptr}};
  return Time(microseconds, [&](const CudaLayer& layer) {
    return steps->Fused(layer, tokens_, buffers);
  });
}

absl::Status CaseTimer::TimeDense() {
  absl::Status status = Time(&times_.product, [this](const CudaLayer& layer) {
    return DenseGate(layer);
  });
  status.Update(Time(&times_.dense_step2, [this](const CudaLayer& layer) {
    return steps_.DenseUp(layer, tokens_);
  }));
  status.Update(
      Time(&times_.dense_step3_transposed, [this](const CudaLayer& layer) {
        return steps_.DenseDown(layer, tokens_);
      }));
  status.Update(
      Time(&times_.dense_step3_natural, [this](const CudaLayer& layer) {
        return model_.NaturalDown(layer, tokens_);
      }));
  status.Update(Time(&times_.dense_transposed, [this](const CudaLayer& layer) {
    absl::Status queued = DenseGated(layer);
    queued.Update(steps_.DenseDown(layer, tokens_));
    return queued;
  }));
  status.Update(Time(&times_.dense_natural, [this](const CudaLayer& layer) {
    absl::Status queued = DenseGated(layer);
    queued.Update(model_.NaturalDown(layer, tokens_));
    return queued;
  }));
  return status;
}

}  // namespace

absl::StatusOr<CaseTimes> TimeCase(TimedModel* model, int tokens,
                                   const Options& options) {
  CaseTimer timer(model, tokens);
  absl::Status status = timer.TimeGate();
  if (options.HasPath("steps")) status.Update(timer.TimeSteps());
  if (options.HasPath("fused")) status.Update(timer.TimeFused());
  if (options.HasPath("deterministic")) {
    status.Update(timer.TimeDeterministic());
  }
  if (options.HasPath("dense")) status.Update(timer.TimeDense());
  if (!status.ok()) return status;
  return timer.times();
}

}  // namespace sparse_ffn::bench
