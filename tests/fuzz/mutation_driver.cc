// Runs a fuzz body over its seeds and over mutations of them that are the same
// each time, where libFuzzer is not at hand. Arguments: mutations, seed.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "tests/fuzz/fuzz_body.h"

namespace {

using Random = std::mt19937_64;

constexpr const char* kFragments[] = {"0",
                                      "-1",
                                      "1e400",
                                      "18446744073709551615",
                                      "18446744073709551616",
                                      "null",
                                      "true",
                                      "[",
                                      "]",
                                      "{",
                                      "}",
                                      "\"",
                                      ",",
                                      ":",
                                      "\\u0000",
                                      "\\",
                                      "\xff",
                                      "[0,0]",
                                      "9223372036854775808",
                                      "4294967296",
                                      "..",
                                      "/",
                                      "\"F32\"",
                                      "1.5",
                                      "[1,1]"};

size_t Below(size_t limit, Random& random) {
  return limit == 0 ? 0 : random() % limit;
}

std::string Mutate(std::string input, const std::string& other,
                   Random& random) {
  const size_t at = Below(input.size(), random);
  const size_t length =
      Below(std::min<size_t>(input.size() - at, 16) + 1, random);
  switch (random() % 7) {
    case 0:
      if (!input.empty()) input[at] ^= static_cast<char>(1 << random() % 8);
      break;
    case 1:
      if (!input.empty()) input[at] = static_cast<char>(random());
      break;
    case 2:
      input.erase(at, length);
      break;
    case 3:
      input.insert(at, input.substr(at, length));
      break;
    case 4:
      input.replace(at, length, kFragments[random() % std::size(kFragments)]);
      break;
    case 5:
      input.resize(at);
      break;
    default:
      input = input.substr(0, at) + other.substr(Below(other.size(), random));
  }
  return input;
}

void RunOne(const std::string& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()),
                         input.size());
}

}  // namespace

int main(int argc, char** argv) {
  const long mutations = argc > 1 ? std::atol(argv[1]) : 20'000;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  Random random(seed);
  const std::vector<std::string> seeds = sparse_ffn::FuzzSeeds();
  for (const std::string& input : seeds) RunOne(input);
  for (long i = 0; i < mutations; ++i) {
    std::string input = seeds[random() % seeds.size()];
    for (size_t round = random() % 4 + 1; round > 0; --round) {
      input = Mutate(input, seeds[random() % seeds.size()], random);
    }
    if (random() % 2 == 0) input = sparse_ffn::Repaired(input);
    RunOne(input);
  }
  std::printf("%zu seeds, %ld mutations, random seed %llu: no failure\n",
              seeds.size(), mutations, static_cast<unsigned long long>(seed));
  return 0;
}
