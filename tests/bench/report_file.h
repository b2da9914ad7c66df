// The JSON file of a run: written, read again, and compared with another run.
#ifndef SPARSE_FFN_TESTS_BENCH_REPORT_FILE_H_
#define SPARSE_FFN_TESTS_BENCH_REPORT_FILE_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sparse_ffn::bench {

// Of a case, microseconds a layer on each path; 0 where not measured.
struct PathTimes {
  std::string key;
  double fused = 0;
  double steps = 0;
  double dense = 0;
};

// Creates `path` where there is no such file and changes none that is there.
// PERMISSION_DENIED where it cannot be written.
absl::Status CheckWritable(const std::string& path);

// DATA_LOSS where not all of it could be written.
absl::Status WriteReport(const nlohmann::json& report, const std::string& path);

// The times in a report's cases, in its order. INVALID_ARGUMENT where it is no
// report.
absl::StatusOr<std::vector<PathTimes>> TimesOf(const nlohmann::json& report);

// Of the report in a file; NOT_FOUND where that cannot be opened.
absl::StatusOr<std::vector<PathTimes>> ReadTimes(const std::string& path);

// A table of the cases that are in both, and the keys of those that are not.
std::string CompareTimes(const std::vector<PathTimes>& old_times,
                         const std::vector<PathTimes>& new_times);

}  // namespace sparse_ffn::bench

#endif  // SPARSE_FFN_TESTS_BENCH_REPORT_FILE_H_
