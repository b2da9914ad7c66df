// How neurons are dealt out to the blocks of a fused launch: block b takes
// b, b + blocks, b + 2 blocks, ...
#ifndef SPARSE_FFN_KERNELS_CUDA_DEALT_NEURONS_CUH_
#define SPARSE_FFN_KERNELS_CUDA_DEALT_NEURONS_CUH_

#include <cuda_runtime.h>

namespace sparse_ffn::cuda {

// How many of `neurons` a block has. Blocks are dealt out to groups likewise.
__host__ __device__ inline int DealtTo(int neurons, int blocks, int block) {
  return (neurons - block + blocks - 1) / blocks;
}

// The most that a block has.
__host__ __device__ inline int MostDealt(int neurons, int blocks) {
  return DealtTo(neurons, blocks, 0);
}

// Neuron `i` of those of `block`.
__device__ inline int DealtNeuron(int i, int blocks, int block) {
  return block + i * blocks;
}
// And of this block's.
__device__ inline int DealtNeuron(int i) {
  return DealtNeuron(i, static_cast<int>(gridDim.x),
                     static_cast<int>(blockIdx.x));
}

// How many the blocks before `block` have.
__device__ inline int DealtBefore(int neurons, int blocks, int block) {
  return block * (neurons / blocks) + min(block, neurons % blocks);
}
// And the blocks before this one.
__device__ inline int DealtBefore(int neurons) {
  return DealtBefore(neurons, static_cast<int>(gridDim.x),
                     static_cast<int>(blockIdx.x));
}

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_DEALT_NEURONS_CUH_
