#include "client/ffn_client.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/grpc_status.h"
#include "client/reply_check.h"

namespace sparse_ffn {
namespace {

void SetTimeout(absl::Duration timeout, grpc::ClientContext* context) {
  if (timeout == absl::InfiniteDuration()) return;
  context->set_deadline(std::chrono::system_clock::now() +
                        absl::ToChronoNanoseconds(timeout));
}

absl::Status CheckTarget(const std::string& target) {
  if (absl::StartsWith(target, "unix:")) {
    if (target.size() > 5) return absl::OkStatus();
  } else {
    const size_t colon = target.rfind(':');
    if (colon != std::string::npos && colon > 0 && colon + 1 < target.size()) {
      return absl::OkStatus();
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("target '", target, "' is neither host:port nor unix:path"));
}

void FillRequest(uint64_t request_id, int layer, ConstMatrix hidden_states,
                 v1::Execution execution, v1::ForwardRequest* request) {
  request->set_request_id(request_id);
  request->set_layer(static_cast<uint32_t>(layer));
  request->set_tokens(static_cast<uint32_t>(hidden_states.rows));
  request->set_dtype(ToWire(hidden_states.dtype));
  request->set_execution(execution);
  request->mutable_hidden_states()->assign(
      static_cast<const char*>(hidden_states.data), hidden_states.bytes());
}

absl::Status CheckRequest(int layer, ConstMatrix hidden_states) {
  if (layer < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", layer, " is negative"));
  }
  if (hidden_states.rows > std::numeric_limits<uint32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat(
        hidden_states.rows, " tokens are more than a request can carry"));
  }
  return absl::OkStatus();
}

std::string Shape(ConstMatrix matrix) {
  return absl::StrCat("[", matrix.rows, ", ", matrix.cols, "] ",
                      std::string(DataTypeName(matrix.dtype)));
}

// The view of a reply's output, once its size is known to be what it says.
absl::StatusOr<ConstMatrix> ReplyMatrix(const v1::ForwardReply& reply,
                                        size_t cols) {
  absl::StatusOr<DataType> dtype = FromWire(reply.dtype());
  if (!dtype.ok()) return absl::InternalError(dtype.status().message());
  const ConstMatrix view = {reply.hidden_states().data(), reply.tokens(), cols,
                            *dtype};
  if (view.bytes() != reply.hidden_states().size()) {
    return absl::InternalError(
        absl::StrCat("the reply says ", Shape(view), ", ", view.bytes(),
                     " bytes, but carries ", reply.hidden_states().size()));
  }
  return view;
}

}  // namespace

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

absl::StatusOr<DataType> FromWire(v1::DataType dtype) {
  switch (dtype) {
    case v1::DATA_TYPE_FLOAT32:
      return DataType::kFloat32;
    case v1::DATA_TYPE_FLOAT16:
      return DataType::kFloat16;
    case v1::DATA_TYPE_BFLOAT16:
      return DataType::kBFloat16;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("DataType ", static_cast<int>(dtype),
                       " is none of FLOAT32, FLOAT16, BFLOAT16"));
  }
}

std::string WireName(v1::DataType wire) {
  const absl::StatusOr<DataType> dtype = FromWire(wire);
  return dtype.ok() ? DataTypeName(*dtype) : "unknown";
}

absl::StatusOr<DataType> DataTypeNamed(const std::string& name) {
  const std::optional<DataType> dtype = ParseDataType(name);
  if (dtype.has_value()) return *dtype;
  return absl::InvalidArgumentError(
      absl::StrCat("type '", name, "' is none of float32, float16, bfloat16"));
}

absl::StatusOr<v1::Execution> ParseExecution(absl::string_view name) {
  if (name == "auto") return v1::EXECUTION_AUTO;
  if (name == "sparse") return v1::EXECUTION_SPARSE;
  if (name == "dense") return v1::EXECUTION_DENSE;
  return absl::InvalidArgumentError(
      absl::StrCat("execution '", name, "' is none of auto, sparse, dense"));
}

FfnStream::FfnStream(v1::FfnService::Stub* stub)
    : call_(stub->StreamForward(&context_)) {}

FfnStream::~FfnStream() {
  if (finished_) return;
  Cancel();
  Finish().IgnoreError();
}

absl::Status FfnStream::Send(uint64_t request_id, int layer,
                             ConstMatrix hidden_states,
                             v1::Execution execution) {
  absl::Status checked = CheckRequest(layer, hidden_states);
  if (!checked.ok()) return checked;
  if (send_closed_) {
    return absl::UnavailableError("the stream was closed for sending");
  }
  FillRequest(request_id, layer, hidden_states, execution, &request_);
  if (!call_->Write(request_)) {
    return absl::UnavailableError("the stream has ended");
  }
  return absl::OkStatus();
}

bool FfnStream::Receive(StreamReply* reply) {
  *reply = StreamReply();
  if (!call_->Read(&reply_)) return false;
  reply->request_id = reply_.request_id();
  if (reply_.status_code() != 0) {
    reply->status = ToAbslStatus(
        grpc::Status(static_cast<grpc::StatusCode>(reply_.status_code()),
                     reply_.status_message()));
    return true;
  }
  const size_t row_bytes =
      reply_.tokens() == 0 ? 0
                           : reply_.hidden_states().size() / reply_.tokens();
  const absl::StatusOr<DataType> dtype = FromWire(reply_.dtype());
  const size_t cols = dtype.ok() ? row_bytes / DataTypeBytes(*dtype) : 0;
  absl::StatusOr<ConstMatrix> view = ReplyMatrix(reply_, cols);
  reply->status =
      view.ok() ? CheckStats(reply_.stats(), reply_.tokens()) : view.status();
  if (!reply->status.ok()) return true;
  reply->hidden_states = *view;
  reply->stats = &reply_.stats();
  return true;
}

void FfnStream::CloseSend() {
  if (send_closed_) return;
  send_closed_ = true;
  call_->WritesDone();
}

absl::Status FfnStream::Finish() {
  if (finished_) return final_status_;
  CloseSend();
  while (call_->Read(&reply_)) {
  }
  final_status_ = ToAbslStatus(call_->Finish());
  finished_ = true;
  return final_status_;
}

void FfnStream::Cancel() { context_.TryCancel(); }

FfnClient::FfnClient(std::shared_ptr<grpc::Channel> channel)
    : channel_(std::move(channel)), stub_(v1::FfnService::NewStub(channel_)) {}

absl::StatusOr<std::unique_ptr<FfnClient>> FfnClient::Connect(
    const std::string& target, const FfnClientOptions& options) {
  absl::Status checked = CheckTarget(target);
  if (!checked.ok()) return checked;
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(options.max_message_bytes);
  arguments.SetMaxSendMessageSize(options.max_message_bytes);
  // Without it, channels of one process to one target share a connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  std::unique_ptr<FfnClient> client(new FfnClient(grpc::CreateCustomChannel(
      target, grpc::InsecureChannelCredentials(), arguments)));
  const auto deadline = std::chrono::system_clock::now() +
                        absl::ToChronoNanoseconds(options.connect_timeout);
  if (client->channel_->WaitForConnected(deadline)) return client;
  // The channel does not say why; a call that fails on it does.
  const absl::Status reason =
      client->GetModelInfo(absl::Milliseconds(500)).status();
  return absl::UnavailableError(
      absl::StrCat("no connection to ", target, " within ",
                   absl::FormatDuration(options.connect_timeout),
                   reason.ok() ? "" : absl::StrCat(": ", reason.message())));
}

absl::StatusOr<v1::GetModelInfoReply> FfnClient::GetModelInfo(
    absl::Duration timeout) {
  grpc::ClientContext context;
  SetTimeout(timeout, &context);
  v1::GetModelInfoReply reply;
  const grpc::Status status = stub_->GetModelInfo(&context, {}, &reply);
  if (!status.ok()) return ToAbslStatus(status);
  if (reply.layers_size() == 0 || reply.hidden_size() == 0 ||
      reply.intermediate_size() == 0 || reply.max_batch_tokens() == 0) {
    return absl::InternalError(absl::StrCat(
        "the server describes its model with ", reply.layers_size(),
        " layers, hidden size ", reply.hidden_size(), ", intermediate size ",
        reply.intermediate_size(), ", at most ", reply.max_batch_tokens(),
        " tokens; none may be 0"));
  }
  return reply;
}

absl::StatusOr<v1::GetModelInfoReply> FfnClient::WaitForModelInfo(
    absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  absl::Status why;
  while (true) {
    absl::StatusOr<v1::GetModelInfoReply> info =
        GetModelInfo(std::max(deadline - absl::Now(), absl::Milliseconds(100)));
    if (absl::IsDeadlineExceeded(info.status()) && !why.ok()) return why;
    if (!absl::IsUnavailable(info.status()) || absl::Now() >= deadline) {
      return info;
    }
    why = info.status();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

absl::Status FfnClient::Forward(int layer, ConstMatrix hidden_states,
                                Matrix output, const ForwardOptions& options,
                                v1::ForwardStats* stats) {
  absl::Status checked = CheckRequest(layer, hidden_states);
  if (!checked.ok()) return checked;
  if (output.rows != hidden_states.rows || output.cols != hidden_states.cols ||
      output.dtype != hidden_states.dtype) {
    return absl::InvalidArgumentError(
        absl::StrCat("output is ", Shape(output), ", expected ",
                     Shape(hidden_states), " as the hidden states"));
  }
  v1::ForwardRequest request;
  v1::ForwardReply reply;
  FillRequest(next_request_id_++, layer, hidden_states, options.execution,
              &request);
  grpc::ClientContext context;
  SetTimeout(options.timeout, &context);
  const grpc::Status status = stub_->Forward(&context, request, &reply);
  if (!status.ok()) return ToAbslStatus(status);
  checked = CheckReply(request, reply);
  if (!checked.ok()) return checked;
  std::memcpy(output.data, reply.hidden_states().data(), output.bytes());
  if (stats != nullptr) stats->Swap(reply.mutable_stats());
  return absl::OkStatus();
}

std::unique_ptr<FfnStream> FfnClient::NewStream() {
  return std::unique_ptr<FfnStream>(new FfnStream(stub_.get()));
}

}  // namespace sparse_ffn
