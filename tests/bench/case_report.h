// A timed case as a row of the table and as an entry of the JSON file.
#ifndef SPARSE_FFN_TESTS_BENCH_CASE_REPORT_H_
#define SPARSE_FFN_TESTS_BENCH_CASE_REPORT_H_

#include <nlohmann/json.hpp>
#include <string>

#include "tests/bench/bench_figures.h"

namespace sparse_ffn::bench {

struct TimedCase {
  std::string preset;
  std::string dtype;
  int tokens = 0;
  std::string input;
  int layers = 0;
  double union_density = 0;
  CaseTimes times;
  Figures figures;

  // The same for the same case of another run.
  std::string Key() const;
};

// A line with its end; times that were not measured are "-".
std::string TableHeader();
std::string TableRow(const TimedCase& timed);

// Without the times that were not measured.
nlohmann::json CaseJson(const TimedCase& timed);

}  // namespace sparse_ffn::bench

#endif  // SPARSE_FFN_TESTS_BENCH_CASE_REPORT_H_
