#include "client/cli/hash_comparison.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/ffn_client.h"
#include "server/checkpoint/parallel_blocks.h"
#include "server/checkpoint/weights_hash.h"

namespace sparse_ffn {

absl::StatusOr<HashVerdict> CompareHash(const v1::GetModelInfoReply& info,
                                        const std::vector<int>& checked_layers,
                                        const Checkpoint& checkpoint) {
  const std::vector<int> held(info.layers().begin(), info.layers().end());
  const std::string& served = info.weights_hash();
  if (checked_layers != held || served.empty()) {
    absl::PrintF("weights hash: not compared, %s\n",
                 served.empty() ? "the server gives none"
                                : "it is of all layers that the server holds");
    return HashVerdict::kNotCompared;
  }
  absl::StatusOr<std::string> hash =
      HashWeights(checkpoint, held, UsableProcessors());
  if (!hash.ok()) return hash.status();
  if (*hash == served) {
    absl::PrintF("weights hash: %s on both sides\n", served);
    return HashVerdict::kSame;
  }
  const bool same_type = ToWire(checkpoint.dtype()) == info.weights_dtype();
  absl::PrintF(
      "weights hash: the server's is %s, the checkpoint's %s: %s\n", served,
      *hash,
      same_type ? "the server holds other weights"
                : absl::StrCat("not the same files; the checkpoint is stored "
                               "in another type, ",
                               DataTypeName(checkpoint.dtype())));
  return same_type ? HashVerdict::kDifferent : HashVerdict::kNotCompared;
}

}  // namespace sparse_ffn
