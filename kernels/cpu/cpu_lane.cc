#include "kernels/cpu/cpu_lane.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/activation.h"
#include "kernels/cpu/down_kernels.h"

namespace sparse_ffn::cpu {
namespace {

using Clock = std::chrono::steady_clock;

// More parts than threads, for when a thread loses its processor for a while.
constexpr size_t kPartsPerThread = 4;
constexpr size_t kMinNeuronsPerPart = 8;
// Narrower parts would read too little of a row at a time.
constexpr size_t kMinColumnsPerPart = 128;

struct Range {
  size_t begin;
  size_t end;
};

// Part number `part` of [0, count); all boundaries but the last are multiples
// of `multiple`.
Range PartOf(size_t count, size_t parts, size_t part, size_t multiple) {
  const size_t units = (count + multiple - 1) / multiple;
  return {std::min(count, units * part / parts * multiple),
          std::min(count, units * (part + 1) / parts * multiple)};
}

size_t NeuronParts(int threads, size_t neurons) {
  if (threads == 1) return 1;
  return std::clamp<size_t>(neurons / kMinNeuronsPerPart, 1,
                            static_cast<size_t>(threads) * kPartsPerThread);
}

size_t ColumnParts(int threads, size_t columns) {
  return std::clamp<size_t>(columns / kMinColumnsPerPart, 1,
                            static_cast<size_t>(threads));
}

// For each half of the neurons: as many pieces as threads, or two for each.
int PartsOfHalf(int threads) {
  return threads % 2 == 0 ? threads / 2 : threads;
}

uint64_t Nanoseconds(Clock::time_point from, Clock::time_point to) {
  return static_cast<uint64_t>(std::chrono::nanoseconds(to - from).count());
}

float* Floats(const AlignedMemory& memory) {
  return reinterpret_cast<float*>(memory.get());
}

}  // namespace

absl::StatusOr<std::unique_ptr<FfnLane>> CpuLane::New(const CpuModel& model) {
  try {
    std::unique_ptr<CpuLane> lane(new CpuLane(model));
    absl::Status status = lane->Allocate();
    if (!status.ok()) return status;
    return lane;
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for the buffers of a lane of ",
                     model.config.max_batch_tokens, " tokens"));
  }
}

CpuLane::CpuLane(const CpuModel& model)
    : model_(model),
      hidden_size_(model.config.hidden_size),
      padded_cols_(PaddedCols(model.config.hidden_size)),
      states_type_(StatesType(model.config.weights_dtype)),
      neurons_(model.config.intermediate_size),
      neuron_parts_(NeuronParts(model.pool.threads(), neurons_)),
      token_column_parts_(
          ColumnParts(PartsOfHalf(model.pool.threads()), padded_cols_)),
      batch_column_parts_(ColumnParts(model.pool.threads(), padded_cols_)) {}

absl::Status CpuLane::Allocate() {
  const size_t tokens = model_.config.max_batch_tokens;
  const size_t padded_bytes = tokens * padded_cols_ * sizeof(float);
  for (auto [memory, bytes] :
       {std::pair(&input_, input(tokens).bytes()), std::pair(&x_, padded_bytes),
        std::pair(&lower_y_, padded_bytes),
        std::pair(&upper_y_, padded_bytes)}) {
    auto made = NewAlignedMemory(bytes, "the rows of a lane");
    if (!made.ok()) return made.status();
    *memory = *std::move(made);
    std::memset(memory->get(), 0, bytes);
  }
  output_.resize(tokens * hidden_size_);
  s_.resize(tokens * neurons_);
  h_.resize(tokens * neurons_);
  active_.resize(tokens);
  part_active_.resize(neuron_parts_ * tokens);
  union_.resize(neurons_);
  part_union_.resize(neuron_parts_);
  return absl::OkStatus();
}

Matrix CpuLane::input(size_t tokens) {
  return {input_.get(), tokens, hidden_size_, model_.config.weights_dtype};
}

HiddenStates CpuLane::hidden_states(size_t tokens) const {
  return {reinterpret_cast<uint8_t*>(x_.get()), tokens, padded_cols_,
          states_type_};
}

absl::StatusOr<FfnResult> CpuLane::Run(int layer, size_t tokens,
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
  const CpuLayer& weights = found->second;
  // The sparse path uses the kernels of the dense one wherever tokens need so
  // many of the same neurons that these are faster: it is never the slower one.
  const FfnPath path =
      execution == Execution::kDense ? FfnPath::kDense : FfnPath::kSparse;
  PackStates(input(tokens), hidden_states(tokens));
  Gate(weights, tokens);
  JoinParts(tokens);
  const Clock::time_point gate_done = Clock::now();
  Up(weights, tokens, path);
  const Clock::time_point up_done = Clock::now();
  Down(weights, tokens, path);
  const Clock::time_point down_done = Clock::now();

  FfnResult result;
  result.output = {output_.data(), tokens, hidden_size_, DataType::kFloat32};
  result.stats.active_neurons = absl::MakeConstSpan(active_.data(), tokens);
  result.stats.union_active_neurons = static_cast<uint32_t>(union_count_);
  result.stats.path = path;
  result.stats.gate_ns = Nanoseconds(start, gate_done);
  result.stats.up_ns = Nanoseconds(gate_done, up_done);
  result.stats.down_ns = Nanoseconds(up_done, down_done);
  result.stats.compute_ns = Nanoseconds(start, Clock::now());
  return result;
}

void CpuLane::Gate(const CpuLayer& layer, size_t tokens) {
  const size_t max_tokens = model_.config.max_batch_tokens;
  std::fill(part_active_.begin(), part_active_.end(), 0);
  model_.pool.Run(neuron_parts_, [&](size_t part) {
    const auto [begin, end] =
        PartOf(neurons_, neuron_parts_, part, kMinNeuronsPerPart);
    DotRows({layer.gate_proj, hidden_states(tokens), nullptr, nullptr,
             s_.data(), neurons_},
            begin, end);
    part_union_[part] = SelectActive(
        {s_.data(), tokens, neurons_}, model_.config.threshold, begin, end,
        &part_active_[part * max_tokens], union_.data() + begin);
  });
}

void CpuLane::JoinParts(size_t tokens) {
  const size_t max_tokens = model_.config.max_batch_tokens;
  std::fill_n(active_.begin(), tokens, 0);
  union_count_ = 0;
  for (size_t part = 0; part < neuron_parts_; ++part) {
    for (size_t t = 0; t < tokens; ++t) {
      active_[t] += part_active_[part * max_tokens + t];
    }
    const size_t begin =
        PartOf(neurons_, neuron_parts_, part, kMinNeuronsPerPart).begin;
    std::copy_n(union_.begin() + static_cast<ptrdiff_t>(begin),
                part_union_[part],
                union_.begin() + static_cast<ptrdiff_t>(union_count_));
    union_count_ += part_union_[part];
  }
}

void CpuLane::Up(const CpuLayer& layer, size_t tokens, FfnPath path) {
  const bool sparse = path == FfnPath::kSparse;
  const size_t count = sparse ? union_count_ : neurons_;
  const uint32_t* list = sparse ? union_.data() : nullptr;
  model_.pool.Run(neuron_parts_, [&](size_t part) {
    const auto [begin, end] =
        PartOf(count, neuron_parts_, part, kMinNeuronsPerPart);
    if (begin == end) return;
    DotRows({layer.up_proj, hidden_states(tokens), list,
             sparse ? s_.data() : nullptr, h_.data(), neurons_},
            begin, end);
    for (size_t t = 0; t < tokens; ++t) {
      const float* scores = s_.data() + t * neurons_;
      GateProducts(model_.config.activation, sparse ? scores : scores + begin,
                   sparse ? list + begin : nullptr, end - begin,
                   h_.data() + t * neurons_ + begin);
    }
  });
}

// Whatever the threads and the batch, the halves of the neurons are summed
// apart and then added.
void CpuLane::Down(const CpuLayer& layer, size_t tokens, FfnPath path) {
  const bool sparse = path == FfnPath::kSparse;
  DownTask task;
  task.weights = layer.down_proj;
  task.neurons = sparse ? union_.data() : nullptr;
  task.gated = h_.data();
  task.gated_stride = neurons_;
  task.skip_zeros = sparse;
  task.tokens = tokens;
  const size_t count = sparse ? union_count_ : neurons_;
  size_t middle = neurons_ / 2;
  if (sparse) {
    const auto end = union_.begin() + static_cast<ptrdiff_t>(count);
    middle = static_cast<size_t>(std::lower_bound(union_.begin(), end, middle) -
                                 union_.begin());
  }
  // Halves of which one is much longer make too few even pieces.
  const bool alike = 9 * std::max(middle, count - middle) <= 5 * count;
  const size_t parts =
      tokens == 1 && alike ? token_column_parts_ : batch_column_parts_;
  const auto columns = [&](size_t part) {
    return PartOf(padded_cols_, parts, part, kColumnMultiple);
  };
  model_.pool.Run(2 * parts, [&](size_t part) {
    const bool upper = part >= parts;
    DownTask half = task;
    half.first = upper ? middle : 0;
    half.end = upper ? count : middle;
    half.output = Floats(upper ? upper_y_ : lower_y_);
    const auto [begin, end] = columns(part % parts);
    SumRows(half, begin, end);
  });
  if (tokens == 1) return JoinHalves(tokens, 0, hidden_size_);
  model_.pool.Run(parts, [&](size_t part) {
    const auto [begin, end] = columns(part);
    JoinHalves(tokens, begin, end);
  });
}

void CpuLane::JoinHalves(size_t tokens, size_t begin, size_t end) {
  end = std::min(end, hidden_size_);
  for (size_t t = 0; t < tokens; ++t) {
    const float* lower = Floats(lower_y_) + t * padded_cols_;
    const float* upper = Floats(upper_y_) + t * padded_cols_;
    float* output = output_.data() + t * hidden_size_;
    for (size_t c = begin; c < end; ++c) output[c] = lower[c] + upper[c];
  }
}

}  // namespace sparse_ffn::cpu
