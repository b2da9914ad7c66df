// What the backend and its lanes share.
#ifndef SPARSE_FFN_KERNELS_CPU_CPU_MODEL_H_
#define SPARSE_FFN_KERNELS_CPU_CPU_MODEL_H_

#include <map>

#include "kernels/cpu/aligned_memory.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/ffn_backend.h"

namespace sparse_ffn::cpu {

struct CpuLayer {
  AlignedMemory memory;  // All three matrices, [intermediate_size] rows each.
  PackedMatrix gate_proj;
  PackedMatrix up_proj;
  PackedMatrix down_proj;
};

// Constant while lanes run, but for the threads.
struct CpuModel {
  CpuModel(const FfnConfig& c, int threads) : config(c), pool(threads) {}

  const FfnConfig config;
  std::map<int, CpuLayer> layers;
  mutable ThreadPool pool;
};

}  // namespace sparse_ffn::cpu

#endif  // SPARSE_FFN_KERNELS_CPU_CPU_MODEL_H_
