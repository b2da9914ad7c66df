// Checks of numbers on the command line, which say what they expected and
// found.
#ifndef SPARSE_FFN_CLIENT_NUMBER_OPTION_H_
#define SPARSE_FFN_CLIENT_NUMBER_OPTION_H_

#include <cstdint>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace sparse_ffn {

constexpr double kLeastPositive = 1e-6;  // Of numbers that must not be 0.
constexpr double kMostSeconds = 1e6;

// A number from least to most. The parser's own ranges let NaN pass.
inline CLI::Validator NumberFrom(double least, double most) {
  return CLI::Validator(
      [least, most](const std::string& text) {
        double value = 0;
        if (absl::SimpleAtod(text, &value) && value >= least && value <= most) {
          return std::string();
        }
        return absl::StrCat("expected a number from ", least, " to ", most,
                            ", found ", text);
      },
      "");
}

// A whole number from least to most.
inline CLI::Validator IntegerFrom(int64_t least, int64_t most) {
  return CLI::Validator(
      [least, most](const std::string& text) {
        int64_t value = 0;
        if (absl::SimpleAtoi(text, &value) && value >= least && value <= most) {
          return std::string();
        }
        return absl::StrCat("expected a whole number from ", least, " to ",
                            most, ", found ", text);
      },
      "");
}

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_NUMBER_OPTION_H_
