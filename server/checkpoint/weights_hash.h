// What tells the FFN weights of one checkpoint from those of another: 32
// hexadecimal digits (XXH3, 128 bits) over the bytes of the tensors as they are
// stored, with their layers, shapes and types. Does not depend on shards or
// threads, nor on the type that a server converts to.
#ifndef SPARSE_FFN_SERVER_CHECKPOINT_WEIGHTS_HASH_H_
#define SPARSE_FFN_SERVER_CHECKPOINT_WEIGHTS_HASH_H_

#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/matrix.h"
#include "server/checkpoint/checkpoint.h"
#include "server/checkpoint/tensor_names.h"

namespace sparse_ffn {

// The hash is taken over digests of blocks, so that several threads can work on
// it. A block is larger than this only where it is a single row.
inline constexpr size_t kWeightBlockBytes = 4 << 20;

// Some rows of one of a layer's tensors.
struct WeightBlock {
  Projection projection = Projection::kGate;
  ConstMatrix tensor;  // All of it: a view of the checkpoint's.
  size_t first_row = 0;
  size_t rows = 0;

  size_t bytes() const { return rows * tensor.row_bytes(); }
};

// The blocks of gate_proj, up_proj and down_proj, in this order.
std::vector<WeightBlock> WeightBlocks(const LayerTensors& tensors);

using BlockDigest = std::array<char, 16>;

// `data` holds the bytes of one block.
BlockDigest DigestBlock(const void* data, size_t bytes);

// Used by one thread.
class WeightsHash {
 public:
  // `digests`: of each of WeightBlocks(tensors). The order of the calls counts.
  void AddLayer(int layer, const LayerTensors& tensors,
                absl::Span<const BlockDigest> digests);

  // Over all layers added so far.
  std::string Hex() const;

 private:
  std::string input_;
};

// The hash of `layers`, each of which `checkpoint` holds, in this order. Reads
// their bytes once, on up to `workers` threads. DATA_LOSS where a file has
// become too short.
absl::StatusOr<std::string> HashWeights(const Checkpoint& checkpoint,
                                        const std::vector<int>& layers,
                                        size_t workers);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_CHECKPOINT_WEIGHTS_HASH_H_
