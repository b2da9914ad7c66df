// Names out of a file, as an error message shows them.
#ifndef SPARSE_FFN_SERVER_CHECKPOINT_QUOTED_H_
#define SPARSE_FFN_SERVER_CHECKPOINT_QUOTED_H_

#include <string>

#include "absl/strings/string_view.h"

namespace sparse_ffn {

// `text` in quotes, escaped, and shortened where it is long.
std::string Quoted(absl::string_view text);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_CHECKPOINT_QUOTED_H_
