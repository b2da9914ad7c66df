#include "server/service/forward_messages.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "server/checkpoint/layer_ranges.h"

namespace sparse_ffn {
namespace {

std::optional<DataType> FromWire(v1::DataType dtype) {
  switch (dtype) {
    case v1::DATA_TYPE_FLOAT32:
      return DataType::kFloat32;
    case v1::DATA_TYPE_FLOAT16:
      return DataType::kFloat16;
    case v1::DATA_TYPE_BFLOAT16:
      return DataType::kBFloat16;
    default:
      return std::nullopt;
  }
}

std::optional<Execution> FromWire(v1::Execution execution) {
  switch (execution) {
    case v1::EXECUTION_AUTO:
      return Execution::kAuto;
    case v1::EXECUTION_SPARSE:
      return Execution::kSparse;
    case v1::EXECUTION_DENSE:
      return Execution::kDense;
    default:
      return std::nullopt;
  }
}

absl::Status Invalid(const absl::AlphaNum& what, const absl::AlphaNum& came,
                     const absl::AlphaNum& expected) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, " is ", came, "; expected ", expected));
}

absl::Status CheckLayer(uint32_t layer, const RequestLimits& limits) {
  if (std::binary_search(limits.layers.begin(), limits.layers.end(), layer)) {
    return absl::OkStatus();
  }
  return absl::NotFoundError(
      absl::StrCat("layer ", layer, " is not held; this server holds layers ",
                   FormatLayers({limits.layers.begin(), limits.layers.end()})));
}

absl::Status CheckFinite(const ConstMatrix& rows, DataType weights_dtype) {
  const int64_t bad = FindNonFinite(rows, weights_dtype);
  if (bad < 0) return absl::OkStatus();
  const auto index = static_cast<size_t>(bad);
  float value = 0;
  const auto* at = static_cast<const std::byte*>(rows.data) +
                   index * DataTypeBytes(rows.dtype);
  Convert(ConstMatrix{at, 1, 1, rows.dtype},
          Matrix{&value, 1, 1, DataType::kFloat32});
  std::string expected = "a finite value";
  if (weights_dtype != DataType::kFloat32) {
    absl::StrAppend(&expected, " below ", LeastInfinite(weights_dtype),
                    " in magnitude, which stays finite in ",
                    DataTypeName(weights_dtype), ", the type of the weights");
  }
  return Invalid(absl::StrCat("hidden_states at token ", index / rows.cols,
                              ", column ", index % rows.cols),
                 value, expected);
}

}  // namespace

absl::Status ReadRequest(const v1::ForwardRequest& request,
                         const RequestLimits& limits, FfnTask* task) {
  const std::optional<DataType> dtype = FromWire(request.dtype());
  if (!dtype.has_value()) {
    return Invalid("dtype", static_cast<int>(request.dtype()),
                   "1 (float32), 2 (float16) or 3 (bfloat16)");
  }
  const std::optional<Execution> execution = FromWire(request.execution());
  if (!execution.has_value()) {
    return Invalid("execution", static_cast<int>(request.execution()),
                   "0 (auto), 1 (sparse) or 2 (dense)");
  }
  const size_t tokens = request.tokens();
  if (tokens == 0 || tokens > limits.max_batch_tokens) {
    return Invalid("tokens", tokens,
                   absl::StrCat("1 to ", limits.max_batch_tokens));
  }
  absl::Status layer = CheckLayer(request.layer(), limits);
  if (!layer.ok()) return layer;
  const std::string& bytes = request.hidden_states();
  const ConstMatrix rows{bytes.data(), tokens, limits.hidden_size, *dtype};
  if (bytes.size() != rows.bytes()) {
    return Invalid("the size of hidden_states",
                   absl::StrCat(bytes.size(), " bytes"),
                   absl::StrCat(rows.bytes(), " bytes: ", tokens, " tokens of ",
                                limits.hidden_size, " ", DataTypeName(*dtype),
                                " elements"));
  }
  task->layer = static_cast<int>(request.layer());
  task->execution = *execution;
  task->hidden_states = rows;
  return CheckFinite(rows, limits.weights_dtype);
}

void WriteReply(const v1::ForwardRequest& request, const RequestLimits& limits,
                const FfnTaskResult& result, v1::ForwardReply* reply) {
  reply->set_request_id(request.request_id());
  reply->set_status_code(0);
  reply->clear_status_message();
  reply->set_tokens(request.tokens());
  reply->set_dtype(request.dtype());
  v1::ForwardStats* stats = reply->mutable_stats();
  stats->mutable_active_neurons()->Assign(result.active_neurons.begin(),
                                          result.active_neurons.end());
  stats->set_union_active_neurons(result.union_active_neurons);
  stats->set_batch_tokens(static_cast<uint32_t>(result.batch_tokens));
  stats->set_intermediate_size(static_cast<uint32_t>(limits.intermediate_size));
  stats->set_path(FfnPathName(result.batch->path));
  stats->set_queue_ns(result.queue_ns);
  stats->set_gate_ns(result.batch->gate_ns);
  stats->set_up_ns(result.batch->up_ns);
  stats->set_down_ns(result.batch->down_ns);
  stats->set_compute_ns(result.batch->compute_ns);
  Matrix rows{nullptr, result.output.rows, result.output.cols,
              FromWire(request.dtype()).value_or(DataType::kFloat32)};
  std::string* bytes = reply->mutable_hidden_states();
  bytes->resize(rows.bytes());
  rows.data = bytes->data();
  Convert(result.output, rows);
}

v1::DataType ToWire(DataType dtype) {
  switch (dtype) {
    case DataType::kFloat32:
      return v1::DATA_TYPE_FLOAT32;
    case DataType::kFloat16:
      return v1::DATA_TYPE_FLOAT16;
    case DataType::kBFloat16:
      break;
  }
  return v1::DATA_TYPE_BFLOAT16;
}

}  // namespace sparse_ffn
