#include "kernels/cpu/aligned_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "absl/strings/str_cat.h"

namespace sparse_ffn::cpu {
namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;

}  // namespace

void AlignedDelete::operator()(uint8_t* memory) const {
  ::operator delete (memory, std::align_val_t{kHugePageBytes});
}

absl::StatusOr<AlignedMemory> NewAlignedMemory(size_t bytes,
                                               const char* purpose) {
  void* memory =
      ::operator new (std::max(bytes, size_t{1}),
                      std::align_val_t{kHugePageBytes}, std::nothrow);
  if (memory == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for ", purpose, ": ", bytes, " bytes"));
  }
  const size_t huge_bytes = bytes / kHugePageBytes * kHugePageBytes;
  // Advice only: small pages give the same results, later.
  if (huge_bytes > 0) madvise(memory, huge_bytes, MADV_HUGEPAGE);
  return AlignedMemory(static_cast<uint8_t*>(memory));
}

}  // namespace sparse_ffn::cpu
