#include "server/service/ffn_server.h"

#include <algorithm>
#include <climits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "server/service/completion_tag.h"
#include "server/service/listen_address.h"

namespace sparse_ffn {
namespace {

// What ends calls that are not ours, such as a watch of the health service,
// when the server shuts down.
constexpr auto kShutdownGrace = std::chrono::milliseconds(200);
// Cancelled calls come back at once, but for those that a lane holds.
constexpr auto kCancelGrace = std::chrono::seconds(5);

std::string ServiceName() { return v1::FfnService::service_full_name(); }

std::string WithPort(const std::string& address, int port) {
  if (!UnixSocketPath(address).empty()) return address;
  return absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
}

}  // namespace

absl::StatusOr<std::unique_ptr<FfnServer>> FfnServer::Listen(
    const FfnServerOptions& options, Metrics* metrics) {
  std::unique_ptr<FfnServer> server(new FfnServer(metrics));
  absl::Status bound = server->Bind(options);
  if (!bound.ok()) return bound;
  server->service_.Start(server->queue_.get());
  server->poller_ = std::thread([running = server.get()] { running->Poll(); });
  return server;
}

absl::Status FfnServer::Bind(const FfnServerOptions& options) {
  for (const std::string& address : options.listen) {
    const std::string path = UnixSocketPath(address);
    if (path.empty()) continue;
    absl::Status removed = RemoveStaleSocket(path);
    if (!removed.ok()) return removed;
  }
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  // Else a second server would share the port and take half of the calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(
      static_cast<int>(std::min<size_t>(options.max_request_bytes, INT_MAX)));
  // The limit holds only for what was decompressed already, so nothing is.
  for (const grpc_compression_algorithm algorithm :
       {GRPC_COMPRESS_DEFLATE, GRPC_COMPRESS_GZIP}) {
    builder.SetCompressionAlgorithmSupportStatus(algorithm, false);
  }
  builder.RegisterService(service_.async_service());
  std::vector<int> ports(options.listen.size(), 0);
  for (size_t i = 0; i < ports.size(); ++i) {
    builder.AddListeningPort(options.listen[i],
                             grpc::InsecureServerCredentials(), &ports[i]);
  }
  queue_ = builder.AddCompletionQueue();
  server_ = builder.BuildAndStart();
  if (server_ != nullptr) SetServing(false);
  for (size_t i = 0; i < ports.size(); ++i) {
    if (ports[i] <= 0) return BindError(options.listen[i]);
    addresses_.push_back(WithPort(options.listen[i], ports[i]));
  }
  if (server_ == nullptr) {
    return absl::InternalError("the gRPC server did not start");
  }
  return absl::OkStatus();
}

// The queue may be shut down only when no call will start another operation:
// when all are gone.
FfnServer::~FfnServer() {
  if (server_ == nullptr) return;
  StopAccepting();
  service_.WaitForAllCalls(SteadyTime::max());
  queue_->Shutdown();
  if (poller_.joinable()) poller_.join();
}

void FfnServer::Serve(ServedModel model) {
  service_.Serve(std::move(model));
  SetServing(true);
}

void FfnServer::SetServing(bool serving) {
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  health->SetServingStatus("", serving);
  health->SetServingStatus(ServiceName(), serving);
}

void FfnServer::SetNotServing() {
  server_->GetHealthCheckService()->Shutdown();
}

bool FfnServer::Drain(std::chrono::steady_clock::duration timeout) {
  const SteadyTime deadline = std::chrono::steady_clock::now() + timeout;
  SetNotServing();
  service_.Drain();
  const ServedModel* model = service_.model();
  const bool idle = model == nullptr || model->batcher->WaitIdle(deadline);
  const bool over = service_.WaitForOpenCalls(deadline);
  if (!idle) unanswered_requests_ = service_.requests_in_flight();
  StopAccepting();
  const bool gone =
      service_.WaitForAllCalls(std::chrono::steady_clock::now() + kCancelGrace);
  service_.metrics()->SetQueuedTokensSource(nullptr);
  return idle && over && gone;
}

void FfnServer::Poll() {
  void* tag = nullptr;
  bool ok = false;
  while (queue_->Next(&tag, &ok)) {
    static_cast<CompletionTag*>(tag)->Proceed(ok);
  }
}

// From now on no new call arrives; calls that are left are cancelled.
void FfnServer::StopAccepting() {
  if (stopped_.exchange(true)) return;
  server_->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);
}

}  // namespace sparse_ffn
