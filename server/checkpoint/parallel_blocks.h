// Work on the blocks of a large tensor, spread over threads.
#ifndef SPARSE_FFN_SERVER_CHECKPOINT_PARALLEL_BLOCKS_H_
#define SPARSE_FFN_SERVER_CHECKPOINT_PARALLEL_BLOCKS_H_

#include <cstddef>
#include <functional>

#include "absl/status/status.h"

namespace sparse_ffn {

// Processors this process may run on; at least 1.
size_t UsableProcessors();

// Calls work(block, worker) once for each block in [0, blocks), in about
// ascending order, on up to `workers` threads, the caller's among them; worker
// < workers tells whose scratch memory to use. After an error no further block
// is begun, and the first error is returned.
absl::Status ForEachBlock(
    size_t blocks, size_t workers,
    const std::function<absl::Status(size_t block, size_t worker)>& work);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_CHECKPOINT_PARALLEL_BLOCKS_H_
