// A model made on the CPU backend for timing, in which chosen neurons are
// active.
#ifndef SPARSE_FFN_TESTS_BENCH_CPU_BENCH_MODEL_H_
#define SPARSE_FFN_TESTS_BENCH_CPU_BENCH_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/ffn_backend.h"
#include "tests/bench/bench_masks.h"

namespace sparse_ffn::bench {

// Token t alone sees column t of the gate, which holds 1 where the mask of the
// layer has it active and -1 elsewhere. All else is random.
class CpuBenchModel {
 public:
  struct Sizes {
    size_t hidden_size = 0;  // At least as many as tokens.
    size_t intermediate_size = 0;
    size_t tokens = 0;
    DataType dtype = DataType::kBFloat16;
  };

  // One layer for each of `masks`. `threads` as for NewCpuBackend. Throws
  // std::exception where the backend refuses.
  CpuBenchModel(const Sizes& sizes, int threads, const Masks& masks);

  int layers() const { return layers_; }

  // One batch of all tokens through `layer`.
  FfnStats Run(int layer, Execution execution);

 private:
  ConstMatrix View(const std::vector<uint8_t>& elements) const;
  // Sets one element of a matrix with hidden_size columns.
  void Put(uint8_t* matrix, size_t row, size_t column, float value) const;
  void FillInput();

  const Sizes sizes_;
  const int layers_;
  std::unique_ptr<FfnBackend> backend_;
  std::unique_ptr<FfnLane> lane_;
};

}  // namespace sparse_ffn::bench

#endif  // SPARSE_FFN_TESTS_BENCH_CPU_BENCH_MODEL_H_
