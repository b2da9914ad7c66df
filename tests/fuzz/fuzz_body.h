// What a fuzz target consists of. Each body is linked either to libFuzzer or to
// mutation_driver.cc, which runs it as an ordinary test.
#ifndef SPARSE_FFN_TESTS_FUZZ_FUZZ_BODY_H_
#define SPARSE_FFN_TESTS_FUZZ_FUZZ_BODY_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

// One input. Aborts where something is wrong; returns 0.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace sparse_ffn {

// Well-formed inputs to start from.
std::vector<std::string> FuzzSeeds();

// An input worth trying near `input`, whose bytes were mutated: with a length
// field set right again, for instance, so that what follows is looked at.
std::string Repaired(std::string input);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_TESTS_FUZZ_FUZZ_BODY_H_
