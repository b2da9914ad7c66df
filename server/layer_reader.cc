#include "server/layer_reader.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/checkpoint/parallel_blocks.h"
#include "server/checkpoint/tensor_names.h"
#include "server/transpose.h"

namespace sparse_ffn {
namespace {

// Part of the definition of the hash: it is taken over digests of such blocks.
constexpr size_t kBlockBytes = 4 << 20;
constexpr size_t kDigestBytes = sizeof(XXH128_canonical_t);
constexpr size_t kAlignment = 64;

void AppendNumber(uint64_t value, std::string& text) {
  for (int i = 0; i < 8; ++i) {
    text.push_back(static_cast<char>(value >> (8 * i) & 0xff));
  }
}

void Digest(const void* data, size_t bytes, char* digest) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(data, bytes));
  std::memcpy(digest, &canonical, kDigestBytes);
}

}  // namespace

// One tensor of the layer on its way.
struct LayerReader::Source {
  Projection projection;
  std::string name;
  ConstMatrix stored;  // The checkpoint's view.
  Matrix destination;  // down_proj: [intermediate, hidden].
  size_t first_block;  // Of the layer.
  size_t blocks;
};

absl::StatusOr<LayerReader::Buffer> LayerReader::Allocate(size_t bytes) {
  const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  Buffer buffer(static_cast<std::byte*>(
      std::aligned_alloc(kAlignment, std::max(rounded, kAlignment))));
  if (buffer != nullptr) return buffer;
  return absl::ResourceExhaustedError(
      absl::StrCat("no memory for ", bytes, " bytes while loading"));
}

size_t LayerReader::RowsPerBlock(ConstMatrix tensor) const {
  return std::max<size_t>(1, kBlockBytes / tensor.row_bytes());
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
  // A block is larger than kBlockBytes only where it is a single row.
  const size_t widest = std::max(config.hidden_size, config.intermediate_size);
  const size_t block_elements =
      std::max(widest, kBlockBytes / DataTypeBytes(checkpoint.dtype()));
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
  std::vector<Source> sources;
  size_t blocks = 0;
  for (const auto& [projection, stored, buffer] :
       {std::tuple(Projection::kGate, tensors->gate_proj, gate_proj_.get()),
        std::tuple(Projection::kUp, tensors->up_proj, up_proj_.get()),
        std::tuple(Projection::kDown, tensors->down_proj, down_proj_.get())}) {
    const size_t rows = RowsPerBlock(stored);
    const size_t count = (stored.rows + rows - 1) / rows;
    sources.push_back({projection, FfnTensorName(layer, projection), stored,
                       Matrix{buffer, neurons, hidden, dtype_}, blocks, count});
    blocks += count;
    bytes_read_ += stored.bytes();
  }
  std::vector<char> digests(blocks * kDigestBytes);
  absl::Status status =
      ForEachBlock(blocks, scratch_.size(), [&](size_t block, size_t worker) {
        size_t i = sources.size() - 1;
        while (sources[i].first_block > block) --i;
        return ReadBlock(sources[i], block - sources[i].first_block,
                         scratch_[worker],
                         digests.data() + block * kDigestBytes);
      });
  if (!status.ok()) return status;
  for (const Source& source : sources) AddToHash(layer, source, digests);
  return FfnWeights{sources[0].destination, sources[1].destination,
                    sources[2].destination};
}

absl::Status LayerReader::ReadBlock(const Source& source, size_t block,
                                    const Scratch& scratch,
                                    char* digest) const {
  const bool convert = source.stored.dtype != dtype_;
  const bool transpose = source.projection == Projection::kDown;
  const size_t first_row = block * RowsPerBlock(source.stored);
  const size_t rows =
      std::min(RowsPerBlock(source.stored), source.stored.rows - first_row);
  const size_t cols = source.stored.cols;

  // Where no work is left to do, read straight to the destination.
  void* in_place = transpose ? nullptr : source.destination.row(first_row);
  const Matrix stored = {convert || transpose ? scratch.stored.get() : in_place,
                         rows, cols, source.stored.dtype};
  absl::Status status =
      checkpoint_->ReadRows(source.stored, first_row, rows, stored.data);
  if (!status.ok()) return status;
  Digest(stored.data, stored.bytes(), digest);

  const Matrix converted = {transpose ? scratch.converted.get() : in_place,
                            rows, cols, dtype_};
  if (convert) status = ConvertRows(source, stored, converted);
  if (!status.ok() || !transpose) return status;
  Transpose(convert ? converted : stored, source.destination, first_row);
  return absl::OkStatus();
}

absl::Status LayerReader::ConvertRows(const Source& source, ConstMatrix from,
                                      Matrix to) const {
  Convert(from, to);
  const int64_t at = FindNonFinite(to, to.dtype);
  if (at < 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "tensor \"", source.name, "\": expected values that are finite in ",
      DataTypeName(dtype_), ", found one that is not, stored as ",
      DataTypeName(from.dtype)));
}

void LayerReader::AddToHash(int layer, const Source& source,
                            const std::vector<char>& digests) {
  AppendNumber(static_cast<uint64_t>(layer), hash_input_);
  AppendNumber(static_cast<uint64_t>(source.projection), hash_input_);
  AppendNumber(source.stored.rows, hash_input_);
  AppendNumber(source.stored.cols, hash_input_);
  AppendNumber(static_cast<uint64_t>(source.stored.dtype), hash_input_);
  hash_input_.append(digests.data() + source.first_block * kDigestBytes,
                     source.blocks * kDigestBytes);
}

std::string LayerReader::Hash() const {
  char digest[kDigestBytes];
  Digest(hash_input_.data(), hash_input_.size(), digest);
  return absl::BytesToHexString(absl::string_view(digest, kDigestBytes));
}

}  // namespace sparse_ffn
