// A load that is made only where it is wanted, and not by a branch, after which
// each load would be waited for before the next one starts.
#ifndef SPARSE_FFN_KERNELS_CUDA_LOAD_IF_CUH_
#define SPARSE_FFN_KERNELS_CUDA_LOAD_IF_CUH_

#include <cuda_runtime.h>

namespace sparse_ffn::cuda {

enum class LoadFrom {
  kL2,
  kMemory,  // What is there at the moment, also in the host's memory.
};

// 16 bytes; zeros where they are not wanted.
template <LoadFrom kFrom>
__device__ inline uint4 LoadIf(bool wanted, const void* from) {
  uint4 pack = {};
  // The cache operator is part of the instruction's text.
#define SPARSE_FFN_LOAD_IF(cache_operator)                     \
  asm volatile(                                                \
      "{\n"                                                    \
      ".reg .pred wanted;\n"                                   \
      "setp.ne.s32 wanted, %5, 0;\n"                           \
      "@wanted ld.global." cache_operator                      \
      ".v4.u32 {%0, %1, %2, %3}, [%4];\n"                      \
      "}"                                                      \
      : "+r"(pack.x), "+r"(pack.y), "+r"(pack.z), "+r"(pack.w) \
      : "l"(from), "r"(static_cast<int>(wanted))               \
      : "memory")
  if constexpr (kFrom == LoadFrom::kL2) {
    SPARSE_FFN_LOAD_IF("cg");
  } else {
    SPARSE_FFN_LOAD_IF("cv");
  }
#undef SPARSE_FFN_LOAD_IF
  return pack;
}

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_LOAD_IF_CUH_
