#include "server/checkpoint/weights_hash.h"

#include <xxhash.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"
#include "server/checkpoint/parallel_blocks.h"

namespace sparse_ffn {
namespace {

static_assert(sizeof(BlockDigest) == sizeof(XXH128_canonical_t));

using NamedTensor = std::pair<Projection, ConstMatrix>;

std::array<NamedTensor, 3> NamedTensors(const LayerTensors& tensors) {
  return {NamedTensor(Projection::kGate, tensors.gate_proj),
          NamedTensor(Projection::kUp, tensors.up_proj),
          NamedTensor(Projection::kDown, tensors.down_proj)};
}

size_t RowsPerBlock(ConstMatrix tensor) {
  return std::max<size_t>(1, kWeightBlockBytes / tensor.row_bytes());
}

size_t BlockCount(ConstMatrix tensor) {
  const size_t rows = RowsPerBlock(tensor);
  return (tensor.rows + rows - 1) / rows;
}

void AppendNumber(uint64_t value, std::string& text) {
  for (int i = 0; i < 8; ++i) {
    text.push_back(static_cast<char>(value >> (8 * i) & 0xff));
  }
}

}  // namespace

std::vector<WeightBlock> WeightBlocks(const LayerTensors& tensors) {
  std::vector<WeightBlock> blocks;
  for (const auto& [projection, tensor] : NamedTensors(tensors)) {
    const size_t rows = RowsPerBlock(tensor);
    for (size_t first = 0; first < tensor.rows; first += rows) {
      blocks.push_back(
          {projection, tensor, first, std::min(rows, tensor.rows - first)});
    }
  }
  return blocks;
}

BlockDigest DigestBlock(const void* data, size_t bytes) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(data, bytes));
  BlockDigest digest;
  std::memcpy(digest.data(), &canonical, digest.size());
  return digest;
}

void WeightsHash::AddLayer(int layer, const LayerTensors& tensors,
                           absl::Span<const BlockDigest> digests) {
  for (const auto& [projection, tensor] : NamedTensors(tensors)) {
    AppendNumber(static_cast<uint64_t>(layer), input_);
    AppendNumber(static_cast<uint64_t>(projection), input_);
    AppendNumber(tensor.rows, input_);
    AppendNumber(tensor.cols, input_);
    AppendNumber(static_cast<uint64_t>(tensor.dtype), input_);
    const size_t blocks = BlockCount(tensor);
    for (const BlockDigest& digest : digests.first(blocks)) {
      input_.append(digest.data(), digest.size());
    }
    digests.remove_prefix(blocks);
  }
}

std::string WeightsHash::Hex() const {
  const BlockDigest digest = DigestBlock(input_.data(), input_.size());
  return absl::BytesToHexString(
      absl::string_view(digest.data(), digest.size()));
}

absl::StatusOr<std::string> HashWeights(const Checkpoint& checkpoint,
                                        const std::vector<int>& layers,
                                        size_t workers) {
  WeightsHash hash;
  std::vector<std::vector<std::byte>> buffers(std::max<size_t>(1, workers));
  for (size_t i = 0; i < layers.size(); ++i) {
    absl::StatusOr<LayerTensors> tensors = checkpoint.Layer(layers[i]);
    if (!tensors.ok()) return tensors.status();
    if (i + 1 < layers.size()) checkpoint.Prefetch(layers[i + 1]);
    const std::vector<WeightBlock> blocks = WeightBlocks(*tensors);
    std::vector<BlockDigest> digests(blocks.size());
    absl::Status status = ForEachBlock(
        blocks.size(), buffers.size(), [&](size_t at, size_t worker) {
          const WeightBlock& block = blocks[at];
          std::vector<std::byte>& buffer = buffers[worker];
          if (buffer.size() < block.bytes()) buffer.resize(block.bytes());
          absl::Status read = checkpoint.ReadRows(block.tensor, block.first_row,
                                                  block.rows, buffer.data());
          if (!read.ok()) return read;
          digests[at] = DigestBlock(buffer.data(), block.bytes());
          return absl::OkStatus();
        });
    if (!status.ok()) return status;
    hash.AddLayer(layers[i], *tensors, digests);
  }
  return hash.Hex();
}

}  // namespace sparse_ffn
