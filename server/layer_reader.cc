#include "server/layer_reader.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/checkpoint/parallel_blocks.h"
#include "server/checkpoint/tensor_names.h"
#include "server/transpose.h"

namespace sparse_ffn {
namespace {

constexpr size_t kAlignment = 64;

}  // namespace

// Where a tensor of the layer goes.
struct LayerReader::Target {
  std::string name;    // Of the tensor.
  Matrix destination;  // down_proj: [intermediate, hidden].
};

absl::StatusOr<LayerReader::Buffer> LayerReader::Allocate(size_t bytes) {
  const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  Buffer buffer(static_cast<std::byte*>(
      std::aligned_alloc(kAlignment, std::max(rounded, kAlignment))));
  if (buffer != nullptr) return buffer;
  return absl::ResourceExhaustedError(
      absl::StrCat("no memory for ", bytes, " bytes while loading"));
}

absl::StatusOr<LayerReader> LayerReader::Create(const Checkpoint& checkpoint,
                                                DataType weights_dtype,
                                                size_t workers) {
  LayerReader reader(checkpoint, weights_dtype);
  const ModelConfig& config = checkpoint.config();
  const size_t elements = config.hidden_size * config.intermediate_size;
  for (Buffer* buffer :
       {&reader.gate_proj_, &reader.up_proj_, &reader.down_proj_}) {
    absl::StatusOr<Buffer> memory =
        Allocate(elements * DataTypeBytes(weights_dtype));
    if (!memory.ok()) return memory.status();
    *buffer = *std::move(memory);
  }
  const size_t widest = std::max(config.hidden_size, config.intermediate_size);
  const size_t block_elements =
      std::max(widest, kWeightBlockBytes / DataTypeBytes(checkpoint.dtype()));
  reader.scratch_.resize(std::max<size_t>(1, workers));
  for (Scratch& scratch : reader.scratch_) {
    absl::StatusOr<Buffer> stored =
        Allocate(block_elements * DataTypeBytes(checkpoint.dtype()));
    absl::StatusOr<Buffer> converted =
        Allocate(block_elements * DataTypeBytes(weights_dtype));
    if (!stored.ok()) return stored.status();
    if (!converted.ok()) return converted.status();
    scratch = {*std::move(stored), *std::move(converted)};
  }
  return reader;
}

absl::StatusOr<FfnWeights> LayerReader::Read(int layer) {
  absl::StatusOr<LayerTensors> tensors = checkpoint_->Layer(layer);
  if (!tensors.ok()) return tensors.status();
  const size_t hidden = tensors->gate_proj.cols;
  const size_t neurons = tensors->gate_proj.rows;
  const auto target = [&](Projection projection, std::byte* buffer) {
    return Target{FfnTensorName(layer, projection),
                  Matrix{buffer, neurons, hidden, dtype_}};
  };
  const Target targets[] = {target(Projection::kGate, gate_proj_.get()),
                            target(Projection::kUp, up_proj_.get()),
                            target(Projection::kDown, down_proj_.get())};
  const std::vector<WeightBlock> blocks = WeightBlocks(*tensors);
  std::vector<BlockDigest> digests(blocks.size());
  absl::Status status = ForEachBlock(
      blocks.size(), scratch_.size(), [&](size_t at, size_t worker) {
        const WeightBlock& block = blocks[at];
        return ReadBlock(block, targets[static_cast<size_t>(block.projection)],
                         scratch_[worker], &digests[at]);
      });
  if (!status.ok()) return status;
  for (const WeightBlock& block : blocks) bytes_read_ += block.bytes();
  hash_.AddLayer(layer, *tensors, digests);
  return FfnWeights{targets[0].destination, targets[1].destination,
                    targets[2].destination};
}

absl::Status LayerReader::ReadBlock(const WeightBlock& block,
                                    const Target& target,
                                    const Scratch& scratch,
                                    BlockDigest* digest) const {
  const bool convert = block.tensor.dtype != dtype_;
  const bool transpose = block.projection == Projection::kDown;
  const size_t cols = block.tensor.cols;

  // Where no work is left to do, read straight to the destination.
  void* in_place =
      transpose ? nullptr : target.destination.row(block.first_row);
  const Matrix stored = {convert || transpose ? scratch.stored.get() : in_place,
                         block.rows, cols, block.tensor.dtype};
  absl::Status status = checkpoint_->ReadRows(block.tensor, block.first_row,
                                              block.rows, stored.data);
  if (!status.ok()) return status;
  *digest = DigestBlock(stored.data, stored.bytes());

  const Matrix converted = {transpose ? scratch.converted.get() : in_place,
                            block.rows, cols, dtype_};
  if (convert) status = ConvertRows(target.name, stored, converted);
  if (!status.ok() || !transpose) return status;
  Transpose(convert ? converted : stored, target.destination, block.first_row);
  return absl::OkStatus();
}

absl::Status LayerReader::ConvertRows(const std::string& name, ConstMatrix from,
                                      Matrix to) const {
  Convert(from, to);
  const int64_t at = FindNonFinite(to, to.dtype);
  if (at < 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("tensor \"", name, "\": expected values that are finite in ",
                   DataTypeName(dtype_), ", found one that is not, stored as ",
                   DataTypeName(from.dtype)));
}

}  // namespace sparse_ffn
