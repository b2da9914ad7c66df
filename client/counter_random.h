// Random numbers as a function of a seed and a position: the same on every
// machine, whatever the number of threads. Integer arithmetic and exact
// conversions only; no function of the C library is involved.
#ifndef SPARSE_FFN_CLIENT_COUNTER_RANDOM_H_
#define SPARSE_FFN_CLIENT_COUNTER_RANDOM_H_

#include <cstdint>

namespace sparse_ffn {

class CounterRandom {
 public:
  explicit CounterRandom(uint64_t seed) : seed_(Mix(seed)) {}

  // An independent source for a part of the work.
  CounterRandom Stream(uint64_t id) const {
    return CounterRandom(seed_ + (id + 1) * kOddConstant);
  }

  // 64 random bits for position `i`.
  uint64_t Bits(uint64_t i) const { return Mix(seed_ + i * kOddConstant); }

  // Approximately N(0, 1): the sum of four uniform 16-bit numbers, scaled to
  // unit variance. Bounded by 3.47 in magnitude.
  float Normal(uint64_t i) const {
    const uint64_t bits = Bits(i);
    const auto sum =
        static_cast<int32_t>((bits & 0xffff) + (bits >> 16 & 0xffff) +
                             (bits >> 32 & 0xffff) + (bits >> 48));
    return static_cast<float>(sum - 2 * 65535) * kInverseDeviation;
  }

  // Uniform in [0, 1).
  float Uniform(uint64_t i) const {
    return static_cast<float>(Bits(i) >> 40) * 0x1p-24F;
  }

 private:
  static constexpr uint64_t kOddConstant = 0x9e3779b97f4a7c15;
  // The variance of the sum is 4 * (65536^2 - 1) / 12.
  static constexpr float kInverseDeviation = 2.642900e-5F;

  // Mixes all bits into all bits (the finaliser of splitmix64).
  static constexpr uint64_t Mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  uint64_t seed_;
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_COUNTER_RANDOM_H_
