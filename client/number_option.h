// Checks of numbers on the command line, which say what they expected and
// found.
#ifndef SPARSE_FFN_CLIENT_NUMBER_OPTION_H_
#define SPARSE_FFN_CLIENT_NUMBER_OPTION_H_

#include <cstdint>
#include <limits>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace sparse_ffn {

constexpr double kLeastPositive = 1e-6;  // Of numbers that must not be 0.
constexpr double kMostSeconds = 1e6;
constexpr int64_t kMostTokens = 8192;  // Of a request.

// What `parse`, absl::SimpleAtod or SimpleAtoi, takes for a number from least
// to most. `kind`: "a number" or the like.
template <typename T>
CLI::Validator Within(T least, T most, const char* kind,
                      bool (*parse)(absl::string_view, T*)) {
  return CLI::Validator(
      [=](const std::string& text) {
        T value = 0;
        if (parse(text, &value) && value >= least && value <= most) {
          return std::string();
        }
        return absl::StrCat("expected ", kind, " from ", least, " to ", most,
                            ", found ", text);
      },
      "");
}

// The parser's own ranges let NaN pass.
inline CLI::Validator NumberFrom(double least, double most) {
  return Within<double>(least, most, "a number", absl::SimpleAtod);
}

inline CLI::Validator IntegerFrom(int64_t least, int64_t most) {
  return Within<int64_t>(least, most, "a whole number", absl::SimpleAtoi);
}

inline CLI::Validator AnySeed() {
  return Within<uint64_t>(0, std::numeric_limits<uint64_t>::max(),
                          "a whole number", absl::SimpleAtoi);
}

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_NUMBER_OPTION_H_
