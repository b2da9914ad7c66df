// Products of rows of a weight matrix with one token's hidden states, straight
// from memory to registers: all warps of a block together take the rows that
// the block has.
#ifndef SPARSE_FFN_KERNELS_CUDA_ONE_TOKEN_ROWS_CUH_
#define SPARSE_FFN_KERNELS_CUDA_ONE_TOKEN_ROWS_CUH_

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/dispatch.cuh"

namespace sparse_ffn::cuda {

// So many warps share a row, each the same packs of all its rows: it reads
// their hidden states once for several.
constexpr int kRowSlices = 4;

// kRowPacks: most packs of a row for a lane. kRows: in flight at once in each
// group of warps.
template <typename T, int kRowPacks, int kRows>
class OneTokenRows {
 public:
  static constexpr int kThreads = 512;
  static constexpr int kMaxRows = kThreads;
  static constexpr int kGroups = kThreads / kWarp / kRowSlices;
  // Rows beyond the last one that neuron_of may be asked for.
  static constexpr int kRowsBeyond = kRows * kGroups;

  struct Shared {
    // Zeros beyond the hidden states.
    Pack<T> x[kRowPacks * kRowSlices * kWarp];
    alignas(16) float dots[kMaxRows][kRowSlices];
  };
  using Weights = Pack<T>[kRowPacks][kRows];

  __device__ OneTokenRows(Shared* shared, const void* matrix, int hidden_size)
      : shared_(*shared),
        matrix_(static_cast<const T*>(matrix)),
        hidden_size_(hidden_size) {}

  // Begins to copy them. AwaitCopies and a barrier before the first product.
  __device__ void FetchHiddenStates(const void* hidden_states) {
    const T* x = static_cast<const T*>(hidden_states);
    for (int first = 0; first < kRowPacks * kStep; first += kThreads) {
      const int i = first + threadIdx.x;
      const bool exists = i * kPack < hidden_size_;
      if (i < kRowPacks * kStep) {
        CopyPack(&shared_.x[i], exists ? x + i * kPack : x, exists);
      }
    }
    EndCopies();
  }

  // Takes rows neuron_of(0), ..., neuron_of(count - 1), count <= kMaxRows.
  template <typename F>
  __device__ void Load(int count, F&& neuron_of, Weights& weights) {
    LoadFrom(Group(), count, neuron_of, weights);
  }
  // Their products, what Load took and what it left. Barriers before Dot.
  template <typename F>
  __device__ void Multiply(int count, F&& neuron_of, Weights& weights) {
    for (int row = Group(); row < count;) {
      Dots(row, count, weights);
      row += kRows * kGroups;
      if (row < count) LoadFrom(row, count, neuron_of, weights);
    }
  }
  __device__ float Dot(int row) const {
    float sum = 0;
#pragma unroll
    for (int s = 0; s < kRowSlices; ++s) sum += shared_.dots[row][s];
    return sum;
  }

 private:
  static constexpr int kStep = kRowSlices * kWarp;

  __device__ static int Lane() { return threadIdx.x % kWarp; }
  __device__ static int Slice() { return threadIdx.x / kWarp % kRowSlices; }
  __device__ static int Group() { return threadIdx.x / (kWarp * kRowSlices); }
  // Of this lane's first pack of a row; kStep to the next.
  __device__ static int FirstPack() { return Slice() * kWarp + Lane(); }

  // Of this row and the group's next, this warp's slice.
  template <typename F>
  __device__ void LoadFrom(int first_row, int count, F&& neuron_of,
                           Weights& weights) {
    const T* rows[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const size_t neuron = neuron_of(first_row + r * kGroups);
      rows[r] = matrix_ + neuron * hidden_size_ + FirstPack() * kPack;
    }
#pragma unroll
    for (int k = 0; k < kRowPacks; ++k) {
      const bool exists = (FirstPack() + k * kStep) * kPack < hidden_size_;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        weights[k][r] = LoadWeightsIf(exists && first_row + r * kGroups < count,
                                      rows[r] + k * kStep * kPack);
      }
    }
    __syncwarp();
  }

  __device__ void Dots(int first_row, int count, const Weights& weights) {
    float sums[kRows] = {};
#pragma unroll
    for (int k = 0; k < kRowPacks; ++k) {
      const Pack<T> x = shared_.x[FirstPack() + k * kStep];
#pragma unroll
      for (int r = 0; r < kRows; ++r) sums[r] += DotPacks(weights[k][r], x);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float sum = SumOverWarp(sums[r]);
      const int row = first_row + r * kGroups;
      if (Lane() == 0 && row < count) shared_.dots[row][Slice()] = sum;
    }
  }

  Shared& shared_;
  const T* const matrix_;
  const int hidden_size_;
};

// Of a lane, in all that DispatchOneTokenRows has.
constexpr int kMaxRowPacks = 8;
constexpr int RowPacks(int hidden_size) {
  constexpr int kColumns = kRowSlices * kWarp * kPack;
  return (hidden_size + kColumns - 1) / kColumns;
}

// Calls f with a null pointer to the OneTokenRows for that size.
template <typename F>
cudaError_t DispatchOneTokenRows(Element element, int hidden_size, F&& f) {
  return DispatchElement(element, [&](auto zero) {
    using T = decltype(zero);
    const int packs = RowPacks(hidden_size);
    if (packs <= 4) return f(static_cast<OneTokenRows<T, 4, 4>*>(nullptr));
    if (packs <= 5) return f(static_cast<OneTokenRows<T, 5, 4>*>(nullptr));
    return f(static_cast<OneTokenRows<T, kMaxRowPacks, 2>*>(nullptr));
  });
}

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_ONE_TOKEN_ROWS_CUH_
