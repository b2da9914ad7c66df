// Whether a server holds the very weights of a checkpoint, those included that
// no answer depends on.
#ifndef SPARSE_FFN_CLIENT_CLI_HASH_COMPARISON_H_
#define SPARSE_FFN_CLIENT_CLI_HASH_COMPARISON_H_

#include <vector>

#include "absl/status/statusor.h"
#include "server/checkpoint/checkpoint.h"
#include "sparse_ffn/v1/ffn.pb.h"

namespace sparse_ffn {

enum class HashVerdict { kSame, kDifferent, kNotCompared };

// Compares the server's weights hash with that of the same layers of
// `checkpoint`, which it reads once, and prints what came of it. kNotCompared
// where `checked_layers` are not all that the server holds, where it gives no
// hash, and where the hashes differ but the checkpoint has another type than
// the server's weights: those may have been converted.
absl::StatusOr<HashVerdict> CompareHash(const v1::GetModelInfoReply& info,
                                        const std::vector<int>& checked_layers,
                                        const Checkpoint& checkpoint);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_CLI_HASH_COMPARISON_H_
