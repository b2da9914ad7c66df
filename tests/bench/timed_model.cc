#include "tests/bench/timed_model.h"

#include <algorithm>
#include <utility>

#include "tests/bench/bench_model.h"
#include "tests/bench/graph_timer.h"
#include "tests/bench/sm_clock.h"

namespace sparse_ffn::bench {

using cuda::CudaLayer;
using cuda::ToStatus;

TimedModel::TimedModel(const Preset& preset, DataType dtype)
    : n_(preset.intermediate_size),
      hidden_(preset.hidden_size),
      half_(dtype == DataType::kFloat16) {
  model_.config.hidden_size = hidden_;
  model_.config.intermediate_size = n_;
  model_.config.weights_dtype = dtype;
  model_.config.activation = Activation::kFatRelu;
  model_.config.threshold = 0.5F;
  model_.config.launch_ahead_us = 1000;  // The server's default.
  model_.element = half_ ? cuda::Element::kFloat16 : cuda::Element::kBFloat16;
}

absl::StatusOr<std::unique_ptr<TimedModel>> TimedModel::New(
    const Preset& preset, DataType dtype, const Options& options) {
  std::unique_ptr<TimedModel> model(new TimedModel(preset, dtype));
  absl::Status status = model->Init(options);
  if (!status.ok()) return status;
  return model;
}

absl::Status TimedModel::Init(const Options& options) {
  auto stream = cuda::NewStream();
  if (!stream.ok()) return stream.status();
  stream_ = *std::move(stream);
  const size_t most_tokens =
      *std::max_element(options.tokens.begin(), options.tokens.end());
  model_.config.max_batch_tokens = most_tokens;
  cudaDeviceProp device;
  absl::Status status =
      ToStatus(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  model_.device_traits = {device.multiProcessorCount, device.major >= 9,
                          static_cast<int>(device.sharedMemPerBlockOptin)};
  for (int i = 0; i < options.layers && status.ok(); ++i) status = AddLayer(i);
  if (!status.ok()) return status;
  for (auto [deterministic, made] :
       {std::pair(false, &steps_), std::pair(true, &deterministic_steps_)}) {
    model_.config.deterministic = deterministic;
    auto steps = cuda::CudaSteps::New(model_, stream_.get());
    if (!steps.ok()) return steps.status();
    *made = *std::move(steps);
  }
  model_.config.deterministic = false;
  auto cublas = cuda::Cublas::New(stream_.get());
  if (!cublas.ok()) return cublas.status();
  cublas_ = *std::move(cublas);
  auto output = cuda::NewDeviceMemory(most_tokens * hidden_ * sizeof(float));
  if (!output.ok()) return output.status();
  natural_output_ = *std::move(output);
  auto sink = cuda::NewDeviceMemory(sizeof(int));
  if (!sink.ok()) return sink.status();
  sink_ = *std::move(sink);
  return absl::OkStatus();
}

// The fourth matrix is down_proj in natural layout.
absl::Status TimedModel::AddLayer(int index) {
  constexpr size_t kMatrices = 4;
  auto memory = cuda::NewDeviceMemory(kMatrices * matrix_bytes());
  if (!memory.ok()) return memory.status();
  CudaLayer& layer = model_.layers[index];
  layer.gate_proj = memory->get();
  layer.up_proj = memory->get() + matrix_bytes();
  layer.down_proj = memory->get() + 2 * matrix_bytes();
  layer.memory = *std::move(memory);
  // So small that the columns of the mask decide who is active.
  return ToStatus(FillRandom(layer.memory.get(), kMatrices * n_ * hidden_,
                             1e-3F, index, half_, stream_.get()),
                  "FillRandom");
}

absl::Status TimedModel::NaturalDown(const CudaLayer& layer, int tokens) const {
  return cublas_->ProductWithRows(
      model_.element, tokens, static_cast<int>(hidden_), static_cast<int>(n_),
      steps_->dense_gated(), layer.memory.get() + 3 * matrix_bytes(),
      reinterpret_cast<float*>(natural_output_.get()));
}

absl::Status TimedModel::Prepare(int tokens, const Masks& masks) {
  const int hidden = static_cast<int>(hidden_);
  typical_ = TypicalLayer(masks, n_);
  auto mask = cuda::NewDeviceMemory(masks[0].size());
  if (!mask.ok()) return mask.status();
  absl::Status status;
  for (cuda::CudaSteps* steps : {steps_.get(), deterministic_steps_.get()}) {
    status.Update(ToStatus(FillHidden(steps->hidden_states(), tokens, hidden,
                                      half_, stream_.get()),
                           "FillHidden"));
  }
  for (const auto& [index, layer] : model_.layers) {
    status.Update(ToStatus(
        cudaMemcpyAsync(mask->get(), masks[index].data(), masks[index].size(),
                        cudaMemcpyHostToDevice, stream_.get()),
        "copying a mask"));
    status.Update(
        ToStatus(SetMask(layer.memory.get(),
                         reinterpret_cast<const uint8_t*>(mask->get()), tokens,
                         static_cast<int>(n_), hidden, half_, stream_.get()),
                 "SetMask"));
  }
  status.Update(
      ToStatus(cudaStreamSynchronize(stream_.get()), "preparing a case"));
  return status;
}

absl::Status TimedModel::ReadHiddenStates(Matrix states) const {
  return ToStatus(cudaMemcpy(states.data, steps_->hidden_states(),
                             states.bytes(), cudaMemcpyDeviceToHost),
                  "reading the hidden states");
}

absl::StatusOr<double> TimedModel::TimeLayers(
    const std::function<absl::Status(const CudaLayer&)>& queue) {
  // Batches use two sets of counters in turn, so a replay has to leave them as
  // it found them: it needs an even number of batches.
  const int rounds = layers() % 2 == 0 ? 1 : 2;
  auto time = MedianMicroseconds(stream_.get(), [&] {
    absl::Status status;
    for (int round = 0; round < rounds; ++round) {
      for (const auto& [index, layer] : model_.layers) {
        status.Update(queue(layer));
      }
    }
    return status;
  });
  if (!time.ok()) return time.status();
  return *time / (rounds * layers());
}

absl::Status TimedModel::QueueRead(const CudaLayer& layer) const {
  return ToStatus(ReadAll(layer.memory.get(), 3 * matrix_bytes(),
                          reinterpret_cast<int*>(sink_.get()),
                          model_.device_traits.sm_count, stream_.get()),
                  "ReadAll");
}

absl::Status TimedModel::QueueReads(int rounds) const {
  absl::Status status;
  for (int round = 0; round < rounds; ++round) {
    for (const auto& [index, layer] : model_.layers) {
      status.Update(QueueRead(layer));
    }
  }
  return status;
}

absl::StatusOr<double> TimedModel::ReadBandwidth() {
  auto microseconds =
      TimeLayers([this](const CudaLayer& layer) { return QueueRead(layer); });
  if (!microseconds.ok()) return microseconds.status();
  return 3e6 * static_cast<double>(matrix_bytes()) / *microseconds;
}

absl::StatusOr<double> TimedModel::MeasureSmClock(double read_bandwidth) {
  constexpr double kReadSeconds = 0.01;
  const auto round_bytes =
      static_cast<double>(3 * matrix_bytes() * model_.layers.size());
  const int rounds =
      1 + static_cast<int>(kReadSeconds * read_bandwidth / round_bytes);
  auto memory = cuda::NewPinnedMemory(2 * sizeof(uint64_t));
  if (!memory.ok()) return memory.status();
  auto* passed = reinterpret_cast<uint64_t*>(memory->get());
  absl::Status status = CountCyclesWhileReading(rounds, passed);
  if (!status.ok()) return status;
  return 1e3 * static_cast<double>(passed[0]) / static_cast<double>(passed[1]);
}

absl::Status TimedModel::CountCyclesWhileReading(int rounds, uint64_t* passed) {
  constexpr uint64_t kNanoseconds = 5'000'000;
  auto stream = cuda::NewStream();
  if (!stream.ok()) return stream.status();
  auto busy = cuda::NewEvent();
  if (!busy.ok()) return busy.status();
  absl::Status status = QueueReads(rounds);
  status.Update(
      ToStatus(cudaEventRecord(busy->get(), stream_.get()), "cudaEventRecord"));
  status.Update(ToStatus(cudaStreamWaitEvent(stream->get(), busy->get(), 0),
                         "cudaStreamWaitEvent"));
  status.Update(ToStatus(CountCycles(kNanoseconds, passed, stream->get()),
                         "CountCycles"));
  status.Update(QueueReads(2 * rounds));
  status.Update(
      ToStatus(cudaStreamSynchronize(stream->get()), "counting cycles"));
  status.Update(
      ToStatus(cudaStreamSynchronize(stream_.get()), "reading all layers"));
  return status;
}

}  // namespace sparse_ffn::bench
