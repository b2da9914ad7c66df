// Products of some rows of a weight matrix with the hidden states of a batch,
// by one block: both stream through a ring in shared memory, a chunk or two of
// columns at a time, and the warps share each chunk's columns and rows. In
// order a chunk is a sweep of dot_order.cuh.
#ifndef SPARSE_FFN_KERNELS_CUDA_BATCH_PRODUCTS_CUH_
#define SPARSE_FFN_KERNELS_CUDA_BATCH_PRODUCTS_CUH_

#include <cstddef>

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/dot_order.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace sparse_ffn::cuda {

// How a block divides its work: rows come in tiles of 16.
template <int kTheRowTiles, int kTheRowWarps, int kTheColumnWarps,
          int kTheRingBytes>
struct BatchShape {
  static constexpr int kRowTiles = kTheRowTiles;
  static constexpr int kRowWarps = kTheRowWarps;        // That share the rows,
  static constexpr int kColumnWarps = kTheColumnWarps;  // and the columns.
  static constexpr int kRingBytes = kTheRingBytes;      // At most.
  // In the order of dot_order.cuh: each column warp has a share.
  static constexpr bool kInOrder = kColumnWarps == kDotShares;
};

// All functions by all threads of the block. S: a BatchShape; tokens come in
// tiles of 8.
template <typename T, typename S, int kTokenTiles>
class BatchProducts {
 public:
  static constexpr int kThreads = 32 * S::kRowWarps * S::kColumnWarps;
  static constexpr int kRows = 16 * S::kRowTiles;
  static constexpr int kTokens = 8 * kTokenTiles;
  // Padded, so that rows side by side fall on different banks.
  using Products = float[kRows][kTokens + (kTokens == 8 ? 0 : 8)];

 private:
  // Of a chunk, of a warp: in order two tensor-core products, else one.
  static constexpr int kWarpPacks = S::kInOrder ? kDotChunkPacks : 2;
  static constexpr int kChunkPacks = S::kColumnWarps * kWarpPacks;
  static constexpr int kColumns = kChunkPacks * kPack;  // Of a chunk.
  // MultiplyFast: from a warp's one pack to its other.
  static constexpr int kHalf = kColumns / 2;
  // Of a warp, most.
  static constexpr int kRowTiles =
      (S::kRowTiles + S::kRowWarps - 1) / S::kRowWarps;
  static constexpr int kStageRows = kRows + kTokens;
  // Padded, so that eight rows side by side fall on different banks, or in
  // order chunks of two.
  template <int kChunks>
  static constexpr int kRowBytes = S::kInOrder
                                       ? DotRowStride(2 * kColumns * kChunks)
                                       : 2 * kColumns* kChunks + kPackBytes;
  // Of a stage of the ring: two, for copies of 512 bytes, unless one has as
  // many or there is no room for three such stages.
  static constexpr int kStageChunks =
      kChunkPacks < kWarp && 3 * kStageRows * kRowBytes<2> <= S::kRingBytes ? 2
                                                                            : 1;
  static constexpr int kStagePacks = kStageChunks * kChunkPacks;  // Of a row.
  static constexpr int kSweep = kThreads / kStagePacks;  // Rows copied at once.
  static_assert(kThreads % kStagePacks == 0);
  static constexpr int kRowSweeps = (kRows + kSweep - 1) / kSweep;
  static constexpr int kTokenSweeps = (kTokens + kSweep - 1) / kSweep;
  static constexpr int kStageBytes = kStageRows * kRowBytes<kStageChunks>;
  static constexpr int kMaxStages = 10;
  static constexpr int kStages = S::kRingBytes / kStageBytes < kMaxStages
                                     ? S::kRingBytes / kStageBytes
                                     : kMaxStages;
  static constexpr int kAhead = kStages - 1;  // Steps that copies run ahead.
  static constexpr int kParts = (S::kColumnWarps + 1) / 2;
  static_assert(kStages >= 3);
  static_assert(S::kInOrder || S::kRowTiles % S::kRowWarps == 0);

 public:
  union Shared {
    std::byte ring[kStages][kStageRows][kRowBytes<kStageChunks>];
    // After the last step. Of each warp's columns; the first one becomes the
    // result.
    Products parts[kParts];
  };

  // hidden_states: [tokens, hidden_size], tokens <= kTokens, hidden_size a
  // multiple of kPack.
  __device__ BatchProducts(Shared& shared, const void* hidden_states,
                           int tokens, int hidden_size)
      : shared_(shared),
        hidden_states_(static_cast<const T*>(hidden_states)),
        tokens_(tokens),
        hidden_size_(hidden_size),
        first_chunk_(S::kInOrder ? 0
                                 : static_cast<int>(blockIdx.x) % Chunks()) {}

  // Takes rows neuron_of(0), ..., neuron_of(count - 1) of `matrix`,
  // count <= kRows, and begins to copy them. Needs no hidden states yet, the
  // first time. All threads have left the products of the call before.
  template <typename F>
  __device__ void Start(const void* matrix, int count, F&& neuron_of) {
    count_ = count;
#pragma unroll
    for (int i = 0; i < kRowSweeps; ++i) {
      const int row = i * kSweep + SweepRow();
      rows_[i] =
          static_cast<const T*>(matrix) +
          static_cast<size_t>(row < count ? neuron_of(row) : 0) * hidden_size_ +
          SweepColumn();
    }
    for (int step = 0; step < kAhead; ++step) {
      CopyRows(step, step);
      if (!has_hidden_states_) continue;
      CopyTokens(step, step);
      EndCopies();
    }
  }

  // The products [row][token] of the rows that Start took; what is beyond them
  // and beyond `tokens` is not defined. Valid until the next call. Ends with a
  // barrier.
  __device__ Products& Finish();

 private:
  using Sums = float[kRowTiles][kTokenTiles][4];

  // What this thread copies of a sweep: the row, and the pack of the stage's.
  __device__ static int SweepRow() { return threadIdx.x / kStagePacks; }
  __device__ static int SweepPack() { return threadIdx.x % kStagePacks; }
  // The first column of that pack, in its chunk.
  __device__ static int SweepColumn() {
    return SweepPack() % kChunkPacks * kPack;
  }
  __device__ std::byte* At(int stage, int row, int column) const {
    return shared_.ring[stage][row] + column * 2;
  }
  // Of this warp, in a chunk.
  __device__ static int WarpColumn() {
    const int packs = S::kInOrder ? kWarpPacks : 1;
    return static_cast<int>(threadIdx.x) / 32 % S::kColumnWarps * packs * kPack;
  }
  __device__ static int WarpRow() {
    return static_cast<int>(threadIdx.x) / 32 / S::kColumnWarps * kRowTiles *
           16;
  }

  // Chunks that hold columns.
  __device__ int Chunks() const {
    return (hidden_size_ + kColumns - 1) / kColumns;
  }
  // Each takes the chunks of a stage. At least what Start copies: those after
  // the last chunk are not used.
  __device__ int Steps() const {
    return max((Chunks() + kStageChunks - 1) / kStageChunks, kAhead);
  }
  // Blocks start at different columns, except in order, so that not all of them
  // read the same hidden states at once.
  __device__ int FirstColumn(int chunk) const {
    const int chunks = Chunks();
    if (chunk >= chunks) return hidden_size_;
    const int place = chunk + first_chunk_;
    return (place < chunks ? place : place - chunks) * kColumns;
  }

  // Of the chunk that this thread copies a pack of; hidden_size_ where there is
  // none.
  __device__ int SweepFirstColumn(int step) const {
    return FirstColumn(step * kStageChunks + SweepPack() / kChunkPacks);
  }

  __device__ void CopyRows(int step, int stage) const;
  __device__ void CopyTokens(int step, int stage) const;
  // Chunk `chunk` of that stage.
  __device__ void Multiply(int stage, int chunk, Sums& sums) const {
    if constexpr (S::kInOrder) {
      MultiplyInOrder(stage, chunk, sums);
    } else {
      MultiplyFast(stage, chunk, sums);
    }
  }
  __device__ void MultiplyInOrder(int stage, int chunk, Sums& sums) const;
  __device__ void MultiplyFast(int stage, int chunk, Sums& sums) const;
  __device__ void AddUp(const Sums& sums);

  Shared& shared_;
  const T* const hidden_states_;
  const int tokens_;
  const int hidden_size_;
  const int first_chunk_;
  bool has_hidden_states_ = false;
  int count_ = 0;
  const T* rows_[kRowSweeps];
};

template <typename T, typename S, int kTokenTiles>
__device__ void BatchProducts<T, S, kTokenTiles>::CopyRows(int step,
                                                           int stage) const {
  const int column = SweepFirstColumn(step);
  const bool exists = column + SweepColumn() < hidden_size_;
#pragma unroll
  for (int i = 0; i < kRowSweeps; ++i) {
    const int row = i * kSweep + SweepRow();
    if (row >= count_) break;
    CopyPack(At(stage, row, SweepPack() * kPack),
             exists ? rows_[i] + column : rows_[i], exists);
  }
}

template <typename T, typename S, int kTokenTiles>
__device__ void BatchProducts<T, S, kTokenTiles>::CopyTokens(int step,
                                                             int stage) const {
  const int column = SweepFirstColumn(step) + SweepColumn();
#pragma unroll
  for (int i = 0; i < kTokenSweeps; ++i) {
    const int token = i * kSweep + SweepRow();
    if (token >= kTokens) break;
    const bool exists = token < tokens_ && column < hidden_size_;
    const T* from = hidden_states_;
    if (exists) from += static_cast<size_t>(token) * hidden_size_ + column;
    CopyPack(At(stage, kRows + token, SweepPack() * kPack), from, exists);
  }
}

template <typename T, typename S, int kTokenTiles>
__device__ void BatchProducts<T, S, kTokenTiles>::MultiplyFast(
    int stage, int chunk, Sums& sums) const {
  const int column = chunk * kColumns + WarpColumn();
  const int lane = threadIdx.x % 32;
  uint32_t tokens[2 * kTokenTiles];
  if constexpr (kTokenTiles == 1) {
    LoadTiles<2>(At(stage, kRows + lane % 8, column + lane / 8 % 2 * kHalf),
                 tokens);
  } else {
#pragma unroll
    for (int tile = 0; tile < kTokenTiles; tile += 2) {
      LoadTiles<4>(At(stage, kRows + tile * 8 + lane / 16 * 8 + lane % 8,
                      column + lane / 8 % 2 * kHalf),
                   tokens + 2 * tile);
    }
  }
#pragma unroll
  for (int tile = 0; tile < kRowTiles; ++tile) {
    uint32_t rows[4];
    LoadTiles<4>(At(stage, WarpRow() + tile * 16 + lane % 16,
                    column + lane / 16 * kHalf),
                 rows);
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
      const uint32_t columns[2] = {tokens[2 * t], tokens[2 * t + 1]};
      MultiplyAdd(sums[tile][t], rows, columns, T());
    }
  }
}

template <typename T, typename S, int kTokenTiles>
__device__ void BatchProducts<T, S, kTokenTiles>::MultiplyInOrder(
    int stage, int chunk, Sums& sums) const {
  const int column = chunk * kColumns + WarpColumn() + threadIdx.x % 4 * kPack;
  const int group = threadIdx.x % 32 / 4;
  const auto load = [&](int row) {
    return *reinterpret_cast<const uint4*>(At(stage, row + group, column));
  };
  uint4 tokens[kTokenTiles];
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) tokens[t] = load(kRows + t * 8);
#pragma unroll
  for (int tile = 0; tile < kRowTiles; ++tile) {
    const int row = WarpRow() + tile * 16;
    if (row >= count_) break;
    const uint4 low = load(row);
    const uint4 high = load(row + 8);
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
      AddChunk<T>(low, high, tokens[t], sums[tile][t]);
    }
  }
}

// Each warp has a sum of every product, over its own columns: odd warps hand
// theirs to even ones, whose sums are then added up. With kDotShares column
// warps that is the order of AddShares.
template <typename T, typename S, int kTokenTiles>
__device__ void BatchProducts<T, S, kTokenTiles>::AddUp(const Sums& sums) {
  const int warp = threadIdx.x / 32 % S::kColumnWarps;
  const int first_row = WarpRow() + threadIdx.x % 32 / 4;
  const int first_token = threadIdx.x % 4 * 2;
  Products& part = shared_.parts[warp / 2];
  for (int half = 1; half >= 0; --half) {
    if (warp % 2 == half) {
#pragma unroll
      for (int i = 0; i < 2 * kRowTiles * kTokenTiles; ++i) {
        const int tile = i / 2 / kTokenTiles;
        const int t = i / 2 % kTokenTiles;
        // The last row warp may have a tile less.
        if (S::kInOrder && WarpRow() + tile * 16 >= count_) break;
        auto* at = reinterpret_cast<float2*>(
            &part[first_row + tile * 16 + i % 2 * 8][t * 8 + first_token]);
        float2 sum =
            make_float2(sums[tile][t][i % 2 * 2], sums[tile][t][i % 2 * 2 + 1]);
        if (half == 0 && warp + 1 < S::kColumnWarps) {
          const float2 other = *at;
          sum.x += other.x;
          sum.y += other.y;
        }
        *at = sum;
      }
    }
    __syncthreads();
  }
  for (int i = threadIdx.x; i < count_ * kTokens; i += kThreads) {
    const int row = i / kTokens;
    const int token = i % kTokens;
    float sums[kParts];
#pragma unroll
    for (int w = 0; w < kParts; ++w) sums[w] = shared_.parts[w][row][token];
#pragma unroll
    for (int half = kParts / 2; half > 0; half /= 2) {
#pragma unroll
      for (int w = 0; w < half; ++w) sums[w] += sums[w + half];
    }
    shared_.parts[0][row][token] = sums[0];
  }
  __syncthreads();
}

template <typename T, typename S, int kTokenTiles>
__device__ auto BatchProducts<T, S, kTokenTiles>::Finish() -> Products& {
  const int chunks = Chunks();
  const int steps = Steps();
  if (!has_hidden_states_) {
    for (int step = 0; step < kAhead; ++step) {
      CopyTokens(step, step);
      EndCopies();
    }
    has_hidden_states_ = true;
  }
  Sums sums = {};
  int stage = 0;
  int free_stage = kAhead;  // That all warps have left.
  for (int step = 0; step < steps; ++step) {
    AwaitCopies<kAhead - 1>();
    __syncthreads();
    if (step + kAhead < steps) {
      CopyRows(step + kAhead, free_stage);
      CopyTokens(step + kAhead, free_stage);
    }
    EndCopies();
#pragma unroll
    for (int chunk = 0; chunk < kStageChunks; ++chunk) {
      if (step * kStageChunks + chunk < chunks) Multiply(stage, chunk, sums);
    }
    free_stage = stage;
    if (++stage == kStages) stage = 0;
  }
  __syncthreads();
  AddUp(sums);
  return shared_.parts[0];
}

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_BATCH_PRODUCTS_CUH_
