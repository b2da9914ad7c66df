#include "tests/bench/report_file.h"

#include <algorithm>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace sparse_ffn::bench {
namespace {

const PathTimes* Find(const std::vector<PathTimes>& times,
                      const std::string& key) {
  const auto found = std::find_if(
      times.begin(), times.end(),
      [&](const PathTimes& candidate) { return candidate.key == key; });
  return found == times.end() ? nullptr : &*found;
}

std::string Cell(double value, int precision) {
  if (value <= 0) return absl::StrFormat(" %8s", "-");
  return absl::StrFormat(" %8.*f", precision, value);
}

std::string Cells(double old_us, double new_us) {
  const double ratio = old_us > 0 ? new_us / old_us : 0;
  return absl::StrCat(Cell(old_us, 1), Cell(new_us, 1), Cell(ratio, 3));
}

}  // namespace

absl::Status CheckWritable(const std::string& path) {
  if (std::ofstream(path, std::ios::app).is_open()) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat("--json: ", path, " cannot be written"));
}

absl::Status WriteReport(const nlohmann::json& report,
                         const std::string& path) {
  std::ofstream file(path);
  file << report.dump(1) << "\n";
  file.close();
  if (file.good()) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("--json: ", path, " could not be written"));
}

absl::StatusOr<std::vector<PathTimes>> TimesOf(
    const nlohmann::json& report) try {
  std::vector<PathTimes> times;
  for (const nlohmann::json& entry : report.at("cases")) {
    times.push_back({entry.at("key"), entry.value("fused_us", 0.0),
                     entry.value("steps_us", 0.0),
                     entry.value("dense_us", 0.0)});
  }
  return times;
} catch (const nlohmann::json::exception& error) {
  return absl::InvalidArgumentError(
      absl::StrCat("not a report of this program: ", error.what()));
}

absl::StatusOr<std::vector<PathTimes>> ReadTimes(const std::string& path) {
  std::ifstream file(path);
  if (!file.is_open()) {
    return absl::NotFoundError(absl::StrCat(path, " cannot be opened"));
  }
  auto times = TimesOf(nlohmann::json::parse(file, nullptr, false));
  if (times.ok()) return times;
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": ", times.status().message()));
}

std::string CompareTimes(const std::vector<PathTimes>& old_times,
                         const std::vector<PathTimes>& new_times) {
  std::string table = absl::StrFormat("%-36s %26s %26s %26s\n%-36s", "",
                                      "fused", "steps", "dense", "case");
  for (int path = 0; path < 3; ++path) {
    absl::StrAppendFormat(&table, " %8s %8s %8s", "old us", "new us",
                          "new/old");
  }
  std::string missing;
  for (const PathTimes& now : new_times) {
    const PathTimes* old = Find(old_times, now.key);
    if (old == nullptr) {
      absl::StrAppend(&missing, "only in this run: ", now.key, "\n");
      continue;
    }
    absl::StrAppendFormat(&table, "\n%-36s", now.key);
    absl::StrAppend(&table, Cells(old->fused, now.fused),
                    Cells(old->steps, now.steps), Cells(old->dense, now.dense));
  }
  for (const PathTimes& old : old_times) {
    if (Find(new_times, old.key) != nullptr) continue;
    absl::StrAppend(&missing, "only in the old file: ", old.key, "\n");
  }
  return absl::StrCat(table, "\n", missing);
}

}  // namespace sparse_ffn::bench
