#include "client/make_model/layer_maker.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/npy.h"
#include "client/random_inputs.h"
#include "server/checkpoint/parallel_blocks.h"

namespace sparse_ffn {
namespace {

constexpr size_t kRowsPerBlock = 16;
// Scores of this deviation lie where a FATReLU model's do: thresholds are
// about a hundredth, most active values a few tenths.
constexpr double kScoreDeviation = 0.25;

struct Replay {
  std::vector<float> wanted;  // [neurons, rows]: one neuron's scores together.
  size_t rows = 0;
  double density = 0;
  double mean_active = 0;
};

absl::StatusOr<Replay> ReadReplay(const ModelSpec& spec) {
  absl::StatusOr<NpyArray> file = ReadNpy(spec.replay);
  if (!file.ok()) return file.status();
  if (file->rows == 0 || file->cols != spec.intermediate_size) {
    return absl::InvalidArgumentError(absl::StrCat(
        spec.replay, ": expected one row or more of ", spec.intermediate_size,
        " columns, the intermediate size, found [", file->rows, ", ",
        file->cols, "]"));
  }
  absl::Status rows = GateSolver::CheckRows(file->rows, spec.hidden_size);
  if (!rows.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(spec.replay, ": ", rows.message()));
  }
  std::vector<float> values(file->rows * file->cols);
  Convert(file->view(),
          {values.data(), file->rows, file->cols, DataType::kFloat32});
  Replay replay;
  replay.rows = file->rows;
  replay.wanted.resize(values.size());
  size_t active = 0;
  double sum = 0;
  for (size_t row = 0; row < file->rows; ++row) {
    for (size_t col = 0; col < file->cols; ++col) {
      const float value = values[row * file->cols + col];
      if (!std::isfinite(value) || value < 0) {
        return absl::InvalidArgumentError(absl::StrCat(
            spec.replay, ": expected finite activations >= 0, found ", value,
            " in row ", row, ", column ", col));
      }
      active += value != 0 ? 1 : 0;
      sum += value;
      replay.wanted[col * file->rows + row] = value;
    }
  }
  replay.density =
      static_cast<double>(active) / static_cast<double>(values.size());
  replay.mean_active =
      active == 0 ? kScoreDeviation : sum / static_cast<double>(active);
  return replay;
}

}  // namespace

absl::StatusOr<LayerMaker> LayerMaker::Create(const ModelSpec& spec) {
  const size_t hidden = spec.hidden_size;
  if (spec.replay.empty()) {
    LayerMaker maker(spec, GateDistribution(hidden, spec.density,
                                            spec.threshold, kScoreDeviation));
    maker.inputs_ = RandomInputs(spec.input_rows, hidden, spec.seed);
    return maker;
  }
  absl::StatusOr<Replay> replay = ReadReplay(spec);
  if (!replay.ok()) return replay.status();
  const double scale = std::max(replay->mean_active, spec.threshold);
  // Other inputs than the replayed ones find the same mean density, where the
  // rows are few beside hidden_size.
  LayerMaker maker(
      spec, GateDistribution(hidden, replay->density, spec.threshold, scale));
  maker.wanted_ = std::move(replay->wanted);
  maker.score_scale_ = scale;
  maker.inputs_ = RandomInputs(replay->rows, hidden, spec.seed);
  absl::StatusOr<GateSolver> solver = GateSolver::Create(maker.inputs_, hidden);
  if (!solver.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(
        spec.replay, ": ", std::string(solver.status().message())));
  }
  maker.solver_ = *std::move(solver);
  return maker;
}

absl::StatusOr<ConstMatrix> LayerMaker::Make(size_t layer,
                                             Projection projection) {
  const CounterRandom random = CounterRandom(spec_.seed)
                                   .Stream(layer)
                                   .Stream(static_cast<uint64_t>(projection));
  const bool is_down = projection == Projection::kDown;
  const size_t rows = is_down ? spec_.hidden_size : spec_.intermediate_size;
  const size_t cols = is_down ? spec_.intermediate_size : spec_.hidden_size;
  absl::Status status = projection == Projection::kGate
                            ? MakeGate(random)
                            : MakeNormal(random, rows, cols);
  if (!status.ok()) return status;
  return ConstMatrix{matrix_.data(), rows, cols, spec_.dtype};
}

absl::Status LayerMaker::MakeRows(size_t rows, size_t cols,
                                  const RowMaker& make_row) {
  const size_t row_bytes = cols * DataTypeBytes(spec_.dtype);
  matrix_.resize(rows * row_bytes);
  const size_t workers = UsableProcessors();
  std::vector<std::vector<float>> values(workers, std::vector<float>(cols));
  const size_t blocks = (rows + kRowsPerBlock - 1) / kRowsPerBlock;
  return ForEachBlock(blocks, workers, [&](size_t block, size_t worker) {
    float* row_values = values[worker].data();
    const size_t first = block * kRowsPerBlock;
    for (size_t row = first; row < std::min(rows, first + kRowsPerBlock);
         ++row) {
      absl::Status status = make_row(row, worker, row_values);
      if (!status.ok()) return status;
      Convert({row_values, 1, cols, DataType::kFloat32},
              {matrix_.data() + row * row_bytes, 1, cols, spec_.dtype});
    }
    return absl::OkStatus();
  });
}

absl::Status LayerMaker::MakeGate(const CounterRandom& random) {
  std::vector<GateSolver::Scratch> scratch(UsableProcessors());
  const size_t count = rows();
  return MakeRows(spec_.intermediate_size, spec_.hidden_size,
                  [&](size_t row, size_t worker, float* values) {
                    gate_.FillRow(random.Stream(row), values);
                    if (!solver_) return absl::OkStatus();
                    return solver_->Solve(wanted_.data() + row * count,
                                          spec_.threshold, score_scale_,
                                          spec_.dtype, values, scratch[worker]);
                  });
}

absl::Status LayerMaker::MakeNormal(const CounterRandom& random, size_t rows,
                                    size_t cols) {
  const auto scale =
      static_cast<float>(1 / std::sqrt(static_cast<double>(cols)));
  return MakeRows(rows, cols,
                  [&](size_t row, size_t /*worker*/, float* values) {
                    const CounterRandom row_random = random.Stream(row);
                    for (size_t col = 0; col < cols; ++col) {
                      values[col] = scale * row_random.Normal(col);
                    }
                    return absl::OkStatus();
                  });
}

}  // namespace sparse_ffn
