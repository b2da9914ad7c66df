#include "tests/bench/read_bandwidth.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include "kernels/cpu/aligned_memory.h"

namespace sparse_ffn::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kWords = size_t{64} << 20;  // Of one array.
constexpr size_t kLineWords = 8;
constexpr int kRepeats = 3;

struct Array {
  cpu::AlignedMemory memory;  // In huge pages, as the weights are.
  const uint64_t* words() const {
    return reinterpret_cast<const uint64_t*>(memory.get());
  }
};

Array NewArray() {
  Array array = {
      cpu::NewAlignedMemory(kWords * sizeof(uint64_t), "an array").value()};
  std::fill_n(reinterpret_cast<uint64_t*>(array.memory.get()), kWords, 1);
  return array;
}

template <size_t kStreams>
uint64_t Sum(const Array& array) {
  constexpr size_t kStream = kWords / kStreams;
  std::array<uint64_t, kLineWords> sums = {};
  for (size_t line = 0; line < kStream; line += kLineWords) {
    for (size_t s = 0; s < kStreams; ++s) {
      const uint64_t* words = array.words() + s * kStream + line;
      for (size_t w = 0; w < kLineWords; ++w) sums[w] += words[w];
    }
  }
  return std::accumulate(sums.begin(), sums.end(), uint64_t{0});
}

using SumFunction = uint64_t (*)(const Array&);

// Bytes a second of one run.
double RunOnce(const std::vector<Array>& arrays, SumFunction sum) {
  std::vector<uint64_t> sums(arrays.size());
  std::vector<std::thread> readers;
  readers.reserve(arrays.size());
  const Clock::time_point start = Clock::now();
  for (size_t i = 0; i < arrays.size(); ++i) {
    readers.emplace_back([&, i] { sums[i] = sum(arrays[i]); });
  }
  for (std::thread& reader : readers) reader.join();
  const std::chrono::duration<double> seconds = Clock::now() - start;
  if (sums[0] != kWords) throw std::runtime_error("a sum is wrong");
  return static_cast<double>(arrays.size() * kWords * sizeof(uint64_t)) /
         seconds.count();
}

}  // namespace

double ReadBandwidth(int threads) {
  std::vector<Array> arrays(static_cast<size_t>(threads));
  std::generate(arrays.begin(), arrays.end(), NewArray);
  double best = 0;
  for (SumFunction sum : {Sum<1>, Sum<2>, Sum<4>, Sum<8>}) {
    for (int i = 0; i < kRepeats; ++i) {
      best = std::max(best, RunOnce(arrays, sum));
    }
  }
  return best;
}

}  // namespace sparse_ffn::bench
