// Brings one layer of a checkpoint into memory in the form a backend wants.
#ifndef SPARSE_FFN_SERVER_LAYER_READER_H_
#define SPARSE_FFN_SERVER_LAYER_READER_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/ffn_backend.h"
#include "kernels/matrix.h"
#include "server/checkpoint/checkpoint.h"
#include "server/checkpoint/weights_hash.h"

namespace sparse_ffn {

// Holds memory for one layer, taken at construction. Used by one thread,
// spreads its work over `workers`. Must not outlive the checkpoint.
class LayerReader {
 public:
  // RESOURCE_EXHAUSTED where memory runs out.
  static absl::StatusOr<LayerReader> Create(const Checkpoint& checkpoint,
                                            DataType weights_dtype,
                                            size_t workers);

  // The layer's three matrices, down_proj transposed, converted to
  // weights_dtype; views that the next Read overwrites. INVALID_ARGUMENT,
  // naming the tensor, where a value is not finite after a conversion.
  absl::StatusOr<FfnWeights> Read(int layer);

  // Bytes read from the checkpoint so far.
  uint64_t bytes_read() const { return bytes_read_; }
  // Of all layers read so far, in the order of reading.
  const WeightsHash& hash() const { return hash_; }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  using Buffer = std::unique_ptr<std::byte, Free>;
  struct Target;
  struct Scratch {
    Buffer stored;
    Buffer converted;
  };

  LayerReader(const Checkpoint& checkpoint, DataType weights_dtype)
      : checkpoint_(&checkpoint), dtype_(weights_dtype) {}
  static absl::StatusOr<Buffer> Allocate(size_t bytes);
  absl::Status ReadBlock(const WeightBlock& block, const Target& target,
                         const Scratch& scratch, BlockDigest* digest) const;
  absl::Status ConvertRows(const std::string& name, ConstMatrix from,
                           Matrix to) const;

  const Checkpoint* checkpoint_;
  DataType dtype_;
  Buffer gate_proj_;
  Buffer up_proj_;
  Buffer down_proj_;              // Transposed.
  std::vector<Scratch> scratch_;  // One for each worker.
  WeightsHash hash_;
  uint64_t bytes_read_ = 0;
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_LAYER_READER_H_
