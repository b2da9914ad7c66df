#include "tests/bench/case_report.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace sparse_ffn::bench {
namespace {

std::string Cell(int width, int precision, double value) {
  if (value <= 0) return absl::StrFormat(" %*s", width, "-");
  return absl::StrFormat(" %*.*f", width, precision, value);
}

}  // namespace

std::string TimedCase::Key() const {
  return absl::StrCat(preset, "/", dtype, "/", tokens, "/", input, "/", layers,
                      " layers");
}

std::string TableHeader() {
  std::string header = absl::StrFormat("%-13s %-8s %-9s %4s %7s", "preset",
                                       "dtype", "sparsity", "tok", "union");
  for (const char* name :
       {"gate",   "step2", "step3",   "steps",   "fused",   "product", "dense",
        "floor",  "MB",    "TB/s",    "% of bw", "/floor",  "vs dns",  "2 vs d",
        "3 vs d", "h2h",   "unfores", "determ",  "/sparse", "det h2h"}) {
    absl::StrAppendFormat(&header, " %7s", name);
  }
  return header + "\n";
}

std::string TableRow(const TimedCase& timed) {
  const CaseTimes& t = timed.times;
  const Figures& f = timed.figures;
  std::string row =
      absl::StrFormat("%-13s %-8s %-9s %4d %6.2f%%", timed.preset, timed.dtype,
                      timed.input, timed.tokens, 100 * timed.union_density);
  for (double microseconds :
       {t.gate, t.step2, t.step3, t.steps, t.fused, t.product, f.dense_us,
        f.floor_us, f.floor_bytes / 1e6}) {
    row += Cell(7, 1, microseconds);
  }
  absl::StrAppend(&row, Cell(7, 2, f.bytes_per_second / 1e12),
                  Cell(7, 1, 100 * f.read_share), Cell(7, 2, f.to_floor),
                  Cell(7, 2, f.to_dense), Cell(7, 2, f.step2_to_dense),
                  Cell(7, 2, f.step3_to_dense), Cell(7, 1, t.host_to_host),
                  Cell(7, 1, t.unforeseen), Cell(7, 1, t.deterministic),
                  Cell(7, 2, f.deterministic_to_sparse),
                  Cell(7, 1, t.deterministic_host_to_host), "\n");
  return row;
}

nlohmann::json CaseJson(const TimedCase& timed) {
  const CaseTimes& t = timed.times;
  const Figures& f = timed.figures;
  nlohmann::json entry = {
      {"key", timed.Key()},   {"preset", timed.preset},
      {"dtype", timed.dtype}, {"tokens", timed.tokens},
      {"input", timed.input}, {"union_density", timed.union_density}};
  const auto add = [&entry](const char* name, double value) {
    if (value > 0) entry[name] = value;
  };
  add("gate_us", t.gate);
  add("step2_us", t.step2);
  add("step3_us", t.step3);
  add("steps_us", t.steps);
  add("fused_us", t.fused);
  add("deterministic_us", t.deterministic);
  add("product_us", t.product);
  add("dense_us", f.dense_us);
  add("dense_step2_us", t.dense_step2);
  add("dense_step3_transposed_us", t.dense_step3_transposed);
  add("dense_step3_natural_us", t.dense_step3_natural);
  add("dense_transposed_us", t.dense_transposed);
  add("dense_natural_us", t.dense_natural);
  add("host_to_host_us", t.host_to_host);
  add("unforeseen_us", t.unforeseen);
  add("deterministic_host_to_host_us", t.deterministic_host_to_host);
  add("floor_bytes", f.floor_bytes);
  add("floor_us", f.floor_us);
  add("sparse_bytes_per_second", f.bytes_per_second);
  add("share_of_read_bandwidth", f.read_share);
  add("ratio_to_floor", f.to_floor);
  add("ratio_to_dense", f.to_dense);
  add("step2_ratio_to_dense", f.step2_to_dense);
  add("step3_ratio_to_dense", f.step3_to_dense);
  add("deterministic_ratio_to_sparse", f.deterministic_to_sparse);
  return entry;
}

}  // namespace sparse_ffn::bench
