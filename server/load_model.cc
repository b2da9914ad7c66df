#include "server/load_model.h"

#include <chrono>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/checkpoint/parallel_blocks.h"
#include "server/checkpoint/quoted.h"
#include "server/layer_reader.h"

namespace sparse_ffn {
namespace {

absl::StatusOr<Activation> ChooseActivation(const ModelOptions& options,
                                            const ModelConfig& config) {
  if (options.activation) return *options.activation;
  absl::StatusOr<Activation> activation = ParseActivation(config.hidden_act);
  if (activation.ok()) return activation;
  return absl::InvalidArgumentError(absl::StrCat(
      options.folder,
      "/config.json: hidden_act: expected relu, fatrelu or drelu, whose "
      "outputs are sparse, found ",
      config.hidden_act.empty() ? "none" : Quoted(config.hidden_act),
      "; where that is wrong, name the activation when the server starts"));
}

absl::StatusOr<float> ChooseThreshold(const ModelOptions& options,
                                      const ModelConfig& config,
                                      Activation activation) {
  if (options.threshold) {
    const auto threshold = static_cast<float>(*options.threshold);
    if (!std::isfinite(threshold) || *options.threshold < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("threshold: expected a finite float32 >= 0, found ",
                       *options.threshold));
    }
    if (activation != Activation::kFatRelu && *options.threshold != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("threshold: expected none or 0 with activation ",
                       ActivationName(activation), ", found ", threshold));
    }
    return threshold;
  }
  if (activation != Activation::kFatRelu) return 0.0F;
  const std::string entry =
      absl::StrCat(options.folder, "/config.json: hidden_act_param: ");
  if (!config.hidden_act_param) {
    return absl::InvalidArgumentError(absl::StrCat(
        entry,
        "expected the threshold of fatrelu, found none; give one when "
        "the server starts"));
  }
  const auto threshold = static_cast<float>(*config.hidden_act_param);
  if (std::isfinite(threshold)) return threshold;
  return absl::InvalidArgumentError(
      absl::StrCat(entry, "expected a finite float32 >= 0, found ",
                   *config.hidden_act_param));
}

absl::StatusOr<std::vector<int>> ChooseLayers(const ModelOptions& options,
                                              const Checkpoint& checkpoint) {
  const std::vector<int>& held = checkpoint.layers();
  if (options.layers.empty()) return held;
  const std::optional<int> missing = FirstLayerMissing(options.layers, held);
  if (!missing.has_value()) return LayersOf(options.layers);
  return absl::NotFoundError(absl::StrCat(options.folder, ": expected layer ",
                                          *missing, ", found ", held.size(),
                                          " layers, ", FormatLayers(held)));
}

}  // namespace

absl::StatusOr<ModelPlan> OpenModel(const ModelOptions& options) {
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(options.folder);
  if (!checkpoint.ok()) return checkpoint.status();
  const ModelConfig& model = checkpoint->config();
  absl::StatusOr<Activation> activation = ChooseActivation(options, model);
  if (!activation.ok()) return activation.status();
  absl::StatusOr<float> threshold =
      ChooseThreshold(options, model, *activation);
  if (!threshold.ok()) return threshold.status();
  absl::StatusOr<std::vector<int>> layers = ChooseLayers(options, *checkpoint);
  if (!layers.ok()) return layers.status();

  FfnConfig config;
  config.hidden_size = model.hidden_size;
  config.intermediate_size = model.intermediate_size;
  config.num_layers = layers->size();
  config.weights_dtype = options.weights_dtype.value_or(checkpoint->dtype());
  config.activation = *activation;
  config.threshold = *threshold;
  std::string name = checkpoint->name();
  return ModelPlan{*std::move(checkpoint), std::move(name), *std::move(layers),
                   config};
}

absl::StatusOr<LoadedModel> LoadLayers(
    const ModelPlan& plan, FfnBackend& backend,
    const std::function<void(const LoadProgress&)>& progress) {
  const auto start = std::chrono::steady_clock::now();
  absl::StatusOr<LayerReader> reader = LayerReader::Create(
      plan.checkpoint, plan.config.weights_dtype, UsableProcessors());
  if (!reader.ok()) return reader.status();
  LoadProgress now;
  now.layers_total = plan.layers.size();
  plan.checkpoint.Prefetch(plan.layers.front());
  for (const int layer : plan.layers) {
    absl::StatusOr<FfnWeights> weights = reader->Read(layer);
    if (!weights.ok()) return weights.status();
    ++now.layers_done;
    // The disk works while the backend copies.
    if (now.layers_done < plan.layers.size()) {
      plan.checkpoint.Prefetch(plan.layers[now.layers_done]);
    }
    absl::Status status = backend.AddLayer(layer, *weights);
    if (!status.ok()) return status;
    now.bytes_read = reader->bytes_read();
    now.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
            .count();
    if (progress) progress(now);
  }
  return LoadedModel{backend.weights_bytes(), now.bytes_read, now.seconds,
                     reader->hash().Hex()};
}

}  // namespace sparse_ffn
