// What ffn_bench is asked to time.
#ifndef SPARSE_FFN_TESTS_BENCH_BENCH_OPTIONS_H_
#define SPARSE_FFN_TESTS_BENCH_BENCH_OPTIONS_H_

#include <CLI/CLI.hpp>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace sparse_ffn::bench {

// Sizes of a model.
struct Preset {
  std::string name;
  size_t hidden_size;
  size_t intermediate_size;
};

struct Options {
  std::vector<std::string> presets = {"prosparse-7b", "prosparse-13b"};
  std::vector<std::string> dtypes = {"bfloat16"};
  std::vector<std::string> paths = {"steps", "fused", "dense", "deterministic"};
  std::vector<double> sparsities = {0, 0.6698, 0.893, 0.98};
  std::vector<int> tokens = {1};
  std::string replay;
  int layers = 30;
  int verify = 0;
  std::string json;
  std::string label;
  std::string compare;

  bool HasPath(const std::string& path) const;
};

// The flags refuse names that are not known and numbers out of range.
void AddFlags(CLI::App* app, Options* options);

// Of a name that the flags accept.
const Preset& FindPreset(const std::string& name);

// What is timed of each model.
struct Case {
  int tokens;
  std::optional<double> sparsity;  // Nothing: the rows to replay.

  // "89.3%" or "real rows".
  std::string input() const;
};

// All of each number of tokens before the next.
std::vector<Case> Cases(const Options& options);

}  // namespace sparse_ffn::bench

#endif  // SPARSE_FFN_TESTS_BENCH_BENCH_OPTIONS_H_
