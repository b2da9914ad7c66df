#include "client/cli/check_command.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/cli/check_plan.h"
#include "client/cli/hash_comparison.h"
#include "client/cli/layer_reference.h"
#include "client/ffn_client.h"
#include "client/npy.h"
#include "client/random_inputs.h"
#include "kernels/matrix.h"
#include "server/checkpoint/checkpoint.h"
#include "server/checkpoint/layer_ranges.h"

namespace sparse_ffn {
namespace {

// A server, the checkpoint it should answer for, and what to send.
struct CheckSetup {
  std::unique_ptr<FfnClient> client;
  v1::GetModelInfoReply info;
  ServerArithmetic arithmetic;
  std::vector<int> layers;
  CheckSizes sizes;
  std::vector<std::byte> row_data;
  Matrix rows;  // [sizes.rows, hidden_size] in row_data, as sent.
  ForwardOptions forward_options;
};

absl::Status CompareSizes(const Checkpoint& checkpoint,
                          const v1::GetModelInfoReply& info) {
  const ModelConfig& config = checkpoint.config();
  if (config.hidden_size == info.hidden_size() &&
      config.intermediate_size == info.intermediate_size()) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "the server's model ", info.model_name(), " has hidden size ",
      info.hidden_size(), " and intermediate size ", info.intermediate_size(),
      ", the checkpoint ", checkpoint.name(), " has ", config.hidden_size,
      " and ", config.intermediate_size));
}

absl::Status ChooseLayers(const CheckCommandOptions& options,
                          const Checkpoint& checkpoint, CheckSetup* setup) {
  std::vector<LayerRange> wanted;
  if (options.layers.has_value()) {
    absl::StatusOr<std::vector<LayerRange>> ranges =
        ParseLayerRanges(*options.layers);
    if (!ranges.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--layers: ", ranges.status().message()));
    }
    wanted = *std::move(ranges);
  }
  const std::vector<int> held(setup->info.layers().begin(),
                              setup->info.layers().end());
  absl::StatusOr<std::vector<int>> layers =
      LayersToCheck(wanted, held, checkpoint.layers());
  if (!layers.ok()) return layers.status();
  setup->layers = *std::move(layers);
  return absl::OkStatus();
}

// Rounds the first rows of `source` to `dtype`, which must keep them finite.
absl::Status SetRows(ConstMatrix source, DataType dtype, CheckSetup* setup) {
  source.rows = setup->sizes.rows;
  setup->row_data.resize(source.rows * source.cols * DataTypeBytes(dtype));
  setup->rows = {setup->row_data.data(), source.rows, source.cols, dtype};
  Convert(source, setup->rows);
  const int64_t bad =
      FindNonFinite(setup->rows, setup->arithmetic.weights_dtype);
  if (bad < 0) return absl::OkStatus();
  const auto cols = static_cast<int64_t>(source.cols);
  return absl::InvalidArgumentError(absl::StrCat(
      "row ", bad / cols, ", column ", bad % cols,
      " of the inputs is not finite in ", std::string(DataTypeName(dtype)),
      " or in the type of the server's weights"));
}

absl::Status ChooseRows(const CheckCommandOptions& options, CheckSetup* setup) {
  absl::StatusOr<DataType> dtype = DataTypeNamed(options.dtype);
  if (!dtype.ok()) return dtype.status();
  const size_t hidden_size = setup->info.hidden_size();
  NpyArray inputs;
  if (!options.inputs.empty()) {
    absl::StatusOr<NpyArray> read =
        ReadHiddenStates(options.inputs, hidden_size);
    if (!read.ok()) return read.status();
    inputs = *std::move(read);
  }
  absl::StatusOr<CheckSizes> sizes = ChooseCheckSizes(
      options.tokens, setup->info.max_batch_tokens(), inputs.rows);
  if (!sizes.ok()) return sizes.status();
  setup->sizes = *std::move(sizes);
  if (!options.inputs.empty()) return SetRows(inputs.view(), *dtype, setup);
  const std::vector<float> random =
      RandomInputs(setup->sizes.rows, hidden_size, options.seed);
  return SetRows(
      {random.data(), setup->sizes.rows, hidden_size, DataType::kFloat32},
      *dtype, setup);
}

absl::StatusOr<CheckSetup> SetUp(const CheckCommandOptions& options,
                                 const Checkpoint& checkpoint) {
  CheckSetup setup;
  absl::StatusOr<v1::Execution> execution = ParseExecution(options.execution);
  if (!execution.ok()) return execution.status();
  setup.forward_options.execution = *execution;
  absl::StatusOr<ConnectedServer> server = ConnectTo(options.target);
  if (!server.ok()) return server.status();
  setup.client = std::move(server->client);
  setup.info = std::move(server->info);
  const absl::StatusOr<DataType> weights_dtype =
      FromWire(setup.info.weights_dtype());
  if (!weights_dtype.ok()) return weights_dtype.status();
  setup.arithmetic = {*weights_dtype, setup.info.activation(),
                      setup.info.threshold(),
                      /*rounds_gated=*/setup.info.backend() == "cuda"};
  absl::Status status = CompareSizes(checkpoint, setup.info);
  if (status.ok()) status = ChooseLayers(options, checkpoint, &setup);
  if (status.ok()) status = ChooseRows(options, &setup);
  if (!status.ok()) return status;
  return setup;
}

// Sends all rows in requests of `tokens`, and compares every answer.
absl::StatusOr<RowsComparison> CheckRequests(const CheckSetup& setup,
                                             const LayerReference& reference,
                                             int layer, size_t tokens) {
  const Matrix& rows = setup.rows;
  std::vector<std::byte> answer(tokens * rows.row_bytes());
  const Matrix served = {answer.data(), tokens, rows.cols, rows.dtype};
  RowsComparison all;
  for (const size_t first : RequestStarts(rows.rows, tokens)) {
    v1::ForwardStats stats;
    const absl::Status status = setup.client->Forward(
        layer, {rows.row(first), tokens, rows.cols, rows.dtype}, served,
        setup.forward_options, &stats);
    if (!status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat("layer ", layer, ", ", tokens,
                                       " tokens: ", status.message()));
    }
    all.Merge(reference.Compare(first, served, stats));
  }
  return all;
}

void PrintHeading(const CheckSetup& setup, const Checkpoint& checkpoint) {
  absl::PrintF(
      "%s on %s (%s) against %s: %d layers of %d x %d, %s weights, "
      "%s threshold %g; %d rows of %s\n",
      setup.info.model_name(), setup.info.backend(), setup.info.device_name(),
      checkpoint.name(), setup.layers.size(), setup.info.hidden_size(),
      setup.info.intermediate_size(),
      DataTypeName(setup.arithmetic.weights_dtype), setup.arithmetic.activation,
      setup.arithmetic.threshold, setup.sizes.rows,
      DataTypeName(setup.rows.dtype));
  absl::PrintF("%6s %6s %12s %12s %7s %12s %12s %10s %9s\n", "layer", "tokens",
               "worst error", "tolerance", "ratio", "active", "oracle",
               "borderline", "sparsity");
}

void PrintComparison(int layer, size_t tokens, const CheckSetup& setup,
                     const RowsComparison& comparison) {
  const double evaluated = static_cast<double>(comparison.rows) *
                           static_cast<double>(setup.info.intermediate_size());
  absl::PrintF(
      "%6d %6d %12.4g %12.4g %7.3f %12d %12d %10d %7.2f %%%s\n", layer, tokens,
      comparison.worst_error, comparison.worst_tolerance,
      comparison.worst_ratio, comparison.active_neurons,
      comparison.oracle_active_neurons, comparison.borderline_neurons,
      100 - 100 * static_cast<double>(comparison.active_neurons) / evaluated,
      comparison.passed() ? "" : "  MISS");
}

// A server may be told to compute something else than the checkpoint says, as
// drelu models need; what is checked then is what it says it computes. Whether
// that is so.
bool PrintOverrides(const CheckSetup& setup, const Checkpoint& checkpoint) {
  const ModelConfig& config = checkpoint.config();
  const ServerArithmetic& server = setup.arithmetic;
  bool any = false;
  if (server.activation != config.hidden_act) {
    any = true;
    absl::PrintF("note: the server computes %s; config.json says \"%s\"\n",
                 server.activation, absl::CEscape(config.hidden_act));
  }
  if (server.activation == "fatrelu" && config.hidden_act_param &&
      server.threshold != static_cast<float>(*config.hidden_act_param)) {
    any = true;
    absl::PrintF("note: the server's threshold is %g; config.json says %g\n",
                 server.threshold, *config.hidden_act_param);
  }
  return any;
}

absl::StatusOr<RowsComparison> CheckLayer(const CheckSetup& setup,
                                          const Checkpoint& checkpoint,
                                          int layer) {
  absl::StatusOr<LayerTensors> tensors = checkpoint.Layer(layer);
  if (!tensors.ok()) return tensors.status();
  absl::StatusOr<LayerReference> reference =
      LayerReference::Compute(*tensors, setup.arithmetic, setup.rows);
  if (!reference.ok()) return reference.status();
  RowsComparison all;
  for (const size_t tokens : setup.sizes.token_counts) {
    absl::StatusOr<RowsComparison> comparison =
        CheckRequests(setup, *reference, layer, tokens);
    if (!comparison.ok()) return comparison.status();
    PrintComparison(layer, tokens, setup, *comparison);
    all.Merge(*comparison);
  }
  return all;
}

}  // namespace

absl::StatusOr<bool> RunCheck(const CheckCommandOptions& options) {
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(options.model);
  if (!checkpoint.ok()) return checkpoint.status();
  absl::StatusOr<CheckSetup> setup = SetUp(options, *checkpoint);
  if (!setup.ok()) return setup.status();
  PrintHeading(*setup, *checkpoint);
  const bool overridden = PrintOverrides(*setup, *checkpoint);
  const absl::Time start = absl::Now();
  RowsComparison all;
  for (const int layer : setup->layers) {
    absl::StatusOr<RowsComparison> comparison =
        CheckLayer(*setup, *checkpoint, layer);
    if (!comparison.ok()) return comparison.status();
    all.Merge(*comparison);
  }
  const absl::StatusOr<HashVerdict> hash =
      CompareHash(setup->info, setup->layers, *checkpoint);
  if (!hash.ok()) return hash.status();
  const bool passed = all.passed() && *hash != HashVerdict::kDifferent;
  absl::PrintF(
      "%s: worst error %.4g of tolerance %.4g (ratio %.3f), %d elements beyond "
      "theirs, %d rows with a wrong active count, %d layers in %.1f s%s%s\n",
      passed ? "PASSED" : "FAILED", all.worst_error, all.worst_tolerance,
      all.worst_ratio, all.missed_elements, all.miscounted_rows,
      setup->layers.size(), absl::ToDoubleSeconds(absl::Now() - start),
      *hash == HashVerdict::kDifferent ? ", other weights" : "",
      overridden ? ", activation or threshold not of config.json" : "");
  return passed;
}

}  // namespace sparse_ffn
