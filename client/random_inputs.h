// Random hidden states, the same on every machine.
#ifndef SPARSE_FFN_CLIENT_RANDOM_INPUTS_H_
#define SPARSE_FFN_CLIENT_RANDOM_INPUTS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace sparse_ffn {

// [rows, hidden_size] elements of about 1 + N(0, 1), which is the distribution
// that made checkpoints reach their density for. Each is a multiple of 1/32
// below 8 in magnitude, so float32, float16 and bfloat16 all hold it exactly.
// Each row sums to at least hidden_size / 2. Row r depends on `seed`, r and
// hidden_size alone.
std::vector<float> RandomInputs(size_t rows, size_t hidden_size, uint64_t seed);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_RANDOM_INPUTS_H_
