// Memory for vectors: aligned, with huge pages where the kernel grants them.
#ifndef SPARSE_FFN_KERNELS_CPU_ALIGNED_MEMORY_H_
#define SPARSE_FFN_KERNELS_CPU_ALIGNED_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

namespace sparse_ffn::cpu {

// Bytes of a cache line and of the widest vector; rows start at multiples.
constexpr size_t kAlignmentBytes = 64;

constexpr size_t AlignUp(size_t count, size_t multiple) {
  return (count + multiple - 1) / multiple * multiple;
}

struct AlignedDelete {
  void operator()(uint8_t* memory) const;
};
using AlignedMemory = std::unique_ptr<uint8_t, AlignedDelete>;

// Uninitialised. RESOURCE_EXHAUSTED, naming `purpose`, where there is no more.
absl::StatusOr<AlignedMemory> NewAlignedMemory(size_t bytes,
                                               const char* purpose);

}  // namespace sparse_ffn::cpu

#endif  // SPARSE_FFN_KERNELS_CPU_ALIGNED_MEMORY_H_
