#include "tests/bench/bench_options.h"

#include <algorithm>

#include "absl/strings/str_format.h"

namespace sparse_ffn::bench {
namespace {

// Each takes a column of the gate for itself: fewer than any hidden size.
constexpr int kMostTokens = 1024;

const std::vector<Preset>& Presets() {
  static const auto& presets =
      *new std::vector<Preset>{{"prosparse-7b", 4096, 11008},
                               {"prosparse-13b", 5120, 13824},
                               {"minicpm-s-1b", 1536, 3840}};
  return presets;
}

std::vector<std::string> PresetNames() {
  std::vector<std::string> names;
  for (const Preset& preset : Presets()) names.push_back(preset.name);
  return names;
}

// A comma-separated list of values that `check` accepts.
template <typename T>
void AddList(CLI::App* app, const std::string& flag, std::vector<T>* values,
             const std::string& description, const CLI::Validator& check) {
  app->add_option(flag, *values, description)
      ->delimiter(',')
      ->check(check)
      ->capture_default_str();
}

}  // namespace

bool Options::HasPath(const std::string& path) const {
  return std::find(paths.begin(), paths.end(), path) != paths.end();
}

void AddFlags(CLI::App* app, Options* options) {
  AddList(app, "--presets", &options->presets, "Model sizes",
          CLI::IsMember(PresetNames()));
  AddList(app, "--dtypes", &options->dtypes, "Types of the weights",
          CLI::IsMember(std::vector<std::string>{"bfloat16", "float16"}));
  AddList(app, "--paths", &options->paths,
          "What to time, where the case has it; auto: also whole calls with "
          "EXECUTION_AUTO against the sparse and the dense ones",
          CLI::IsMember(std::vector<std::string>{"steps", "fused", "dense",
                                                 "deterministic", "auto"}));
  AddList(app, "--sparsities", &options->sparsities,
          "Shares of inactive neurons, random", CLI::Range(0.0, 1.0));
  AddList(app, "--tokens", &options->tokens, "Tokens of a batch",
          CLI::Range(1, kMostTokens));
  app->add_option("--replay", options->replay,
                  "Activation rows (.npy) to take the active neurons from");
  app->add_option("--layers", options->layers, "Layers to rotate over")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app->add_option("--verify", options->verify,
                  "Also run that many fresh batches of one token, and of two "
                  "where --tokens goes so far, fused and in steps, and as many "
                  "in rows of fused launches, over each model's last case, and "
                  "compare the results")
      ->check(CLI::Range(0, 1000000));
  app->add_option("--json", options->json, "File for the figures");
  app->add_option("--label", options->label,
                  "Text for that file, such as the commit");
  app->add_option("--compare", options->compare,
                  "File of an earlier run to compare the times with");
}

const Preset& FindPreset(const std::string& name) {
  return *std::find_if(
      Presets().begin(), Presets().end(),
      [&](const Preset& preset) { return preset.name == name; });
}

std::string Case::input() const {
  return sparsity.has_value() ? absl::StrFormat("%.6g%%", 100 * *sparsity)
                              : "real rows";
}

std::vector<Case> Cases(const Options& options) {
  std::vector<Case> cases;
  for (int tokens : options.tokens) {
    for (double sparsity : options.sparsities) {
      cases.push_back({tokens, sparsity});
    }
    if (!options.replay.empty()) cases.push_back({tokens, std::nullopt});
  }
  return cases;
}

}  // namespace sparse_ffn::bench
