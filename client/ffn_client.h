// Client of a sparse-ffn-server.
//
//   auto client = FfnClient::Connect("localhost:50051");
//   if (!client.ok()) return client.status();
//   // Both [tokens, hidden].
//   std::vector<float> x = ..., y(x.size());
//   absl::Status status = (*client)->Forward(
//       /*layer=*/0, ConstMatrix{x.data(), tokens, hidden, DataType::kFloat32},
//       Matrix{y.data(), tokens, hidden, DataType::kFloat32});
//
// Errors have the codes that ffn.proto lists, and the server's message.
#ifndef SPARSE_FFN_CLIENT_FFN_CLIENT_H_
#define SPARSE_FFN_CLIENT_FFN_CLIENT_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "kernels/matrix.h"
#include "sparse_ffn/v1/ffn.grpc.pb.h"
#include "sparse_ffn/v1/ffn.pb.h"

namespace sparse_ffn {

v1::DataType ToWire(DataType dtype);

// INVALID_ARGUMENT for DATA_TYPE_UNSPECIFIED and for unknown values.
absl::StatusOr<DataType> FromWire(v1::DataType dtype);

// "float32", "float16", "bfloat16", or "unknown".
std::string WireName(v1::DataType wire);

// As ParseDataType; INVALID_ARGUMENT, naming the three, for any other name.
absl::StatusOr<DataType> DataTypeNamed(const std::string& name);

// "auto", "sparse" or "dense"; INVALID_ARGUMENT for any other name.
absl::StatusOr<v1::Execution> ParseExecution(absl::string_view name);

struct FfnClientOptions {
  // How long Connect tries.
  absl::Duration connect_timeout = absl::Seconds(5);
  // Largest message sent or accepted; -1 for no limit. The largest that a
  // server sends is max_batch_tokens * (4 * hidden_size + 5) bytes and a few.
  int max_message_bytes = -1;
};

struct ForwardOptions {
  v1::Execution execution = v1::EXECUTION_AUTO;
  // DEADLINE_EXCEEDED after this long.
  absl::Duration timeout = absl::InfiniteDuration();
};

// A reply of an FfnStream.
struct StreamReply {
  uint64_t request_id = 0;
  absl::Status status;        // Of this item. On error the rest is empty.
  ConstMatrix hidden_states;  // Valid until the next Receive.
  const v1::ForwardStats* stats = nullptr;  // Likewise.
};

// One call with many requests in flight. Send may be called by one thread and
// Receive by another, at the same time. Must not outlive its FfnClient.
class FfnStream {
 public:
  ~FfnStream();
  FfnStream(const FfnStream&) = delete;
  FfnStream& operator=(const FfnStream&) = delete;

  // Copies `hidden_states` [tokens, hidden_size] into a request, and blocks
  // while the flow control of the connection holds it back: where many large
  // requests are in flight, another thread should be receiving. UNAVAILABLE
  // when the stream has ended or was closed for sending; Finish says why.
  absl::Status Send(uint64_t request_id, int layer, ConstMatrix hidden_states,
                    v1::Execution execution = v1::EXECUTION_AUTO);

  // Blocks until a reply of any request comes. False when none will come any
  // more: after CloseSend once all requests are answered, or when the stream
  // broke.
  bool Receive(StreamReply* reply);

  // No Send after this one. Called by the sending thread.
  void CloseSend();

  // Closes for sending, drops replies that were not received, and returns how
  // the stream ended: OK where the server answered everything, UNAVAILABLE
  // where it drained or could not be reached. When both threads are done.
  absl::Status Finish();

  // Ends the stream at once: Receive returns false and Finish CANCELLED. From
  // any thread.
  void Cancel();

 private:
  friend class FfnClient;
  using Call = grpc::ClientReaderWriter<v1::ForwardRequest, v1::ForwardReply>;
  explicit FfnStream(v1::FfnService::Stub* stub);

  grpc::ClientContext context_;
  std::unique_ptr<Call> call_;
  v1::ForwardRequest request_;
  v1::ForwardReply reply_;
  bool send_closed_ = false;
  bool finished_ = false;
  absl::Status final_status_;
};

// A connection to one server. All functions may be called from any thread.
class FfnClient {
 public:
  // `target` is host:port or unix:path. Blocks until the connection stands.
  // Each client has a connection of its own, not encrypted, past any HTTP
  // proxy. INVALID_ARGUMENT for a malformed target, UNAVAILABLE (with the
  // reason) when there is no connection within the timeout.
  static absl::StatusOr<std::unique_ptr<FfnClient>> Connect(
      const std::string& target, const FfnClientOptions& options = {});

  FfnClient(const FfnClient&) = delete;
  FfnClient& operator=(const FfnClient&) = delete;

  // INTERNAL where the reply makes no sense (no layers, a size of zero).
  absl::StatusOr<v1::GetModelInfoReply> GetModelInfo(
      absl::Duration timeout = absl::Seconds(10));

  // As GetModelInfo, but asks again while the server is unavailable, as it is
  // while it loads its model, for at most `timeout`; then its last answer.
  absl::StatusOr<v1::GetModelInfoReply> WaitForModelInfo(
      absl::Duration timeout);

  // Sends `hidden_states` through `layer` and writes the FFN output, without
  // the residual, to `output`, which has the same shape and type. `stats` may
  // be null. Blocks. INTERNAL where the reply is none that ffn.proto allows to
  // this request.
  absl::Status Forward(int layer, ConstMatrix hidden_states, Matrix output,
                       const ForwardOptions& options = {},
                       v1::ForwardStats* stats = nullptr);

  // A stream that lives until Finish; opens without waiting for the server.
  std::unique_ptr<FfnStream> NewStream();

  // For programs that drive gRPC themselves.
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

 private:
  explicit FfnClient(std::shared_ptr<grpc::Channel> channel);

  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::FfnService::Stub> stub_;
  // Not 0, which a reply that carries none has.
  std::atomic<uint64_t> next_request_id_{1};
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_FFN_CLIENT_H_
