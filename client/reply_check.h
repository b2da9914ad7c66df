// Whether what a server answers is what ffn.proto promises: for every program
// that takes replies.
#ifndef SPARSE_FFN_CLIENT_REPLY_CHECK_H_
#define SPARSE_FFN_CLIENT_REPLY_CHECK_H_

#include <cstdint>

#include "absl/status/status.h"
#include "sparse_ffn/v1/ffn.pb.h"

namespace sparse_ffn {

// `reply` came with an OK status; of a stream's items: with status_code 0.
// INTERNAL, naming the field, what came and what was expected, where it
// contradicts `request` or itself.
absl::Status CheckReply(const v1::ForwardRequest& request,
                        const v1::ForwardReply& reply);

// The same of the stats alone, in the reply to a request of `tokens`.
absl::Status CheckStats(const v1::ForwardStats& stats, uint32_t tokens);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_REPLY_CHECK_H_
