// What processor and memory this machine has.
#ifndef SPARSE_FFN_KERNELS_CPU_HOST_INFO_H_
#define SPARSE_FFN_KERNELS_CPU_HOST_INFO_H_

#include <cstddef>
#include <optional>
#include <string>

namespace sparse_ffn::cpu {

// Model of the processor and the vector instructions in use, such as
// "AMD EPYC (AVX3 with AVX512_BF16)".
std::string ProcessorName();

// Memory that can be allocated without swapping; none where it is not known.
std::optional<size_t> AvailableMemoryBytes();

}  // namespace sparse_ffn::cpu

#endif  // SPARSE_FFN_KERNELS_CPU_HOST_INFO_H_
