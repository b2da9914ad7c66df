// Kernels that write a model to time, and one that reads it.
#ifndef SPARSE_FFN_TESTS_BENCH_BENCH_MODEL_H_
#define SPARSE_FFN_TESTS_BENCH_BENCH_MODEL_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace sparse_ffn::bench {

// Fills `count` 2-byte floats at `data` with random values of standard
// deviation `scale`. Device memory; bfloat16 unless `half`.
cudaError_t FillRandom(void* data, size_t count, float scale, uint64_t seed,
                       bool half, cudaStream_t stream);

// Makes token t of the hidden states [tokens, hidden] see column t of the gate:
// 1 there, 0 in the other columns below `tokens`, random after them.
cudaError_t FillHidden(void* hidden, int tokens, int hidden_size, bool half,
                       cudaStream_t stream);

// Writes +1 or -1 into column t of gate [n, hidden] as mask [tokens, n] is 1 or
// 0, so that with FillHidden's input a neuron scores near its mask. All device
// memory.
cudaError_t SetMask(void* gate, const uint8_t* mask, int tokens, int n,
                    int hidden_size, bool half, cudaStream_t stream);

// Reads `bytes` (a multiple of 16) once. `sink` holds one int.
cudaError_t ReadAll(const void* data, size_t bytes, int* sink, int sm_count,
                    cudaStream_t stream);

}  // namespace sparse_ffn::bench

#endif  // SPARSE_FFN_TESTS_BENCH_BENCH_MODEL_H_
