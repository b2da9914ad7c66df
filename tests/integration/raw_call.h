// A call of which the test has no generated code, or that is to carry what the
// generated code would not: its messages are bytes.
#ifndef SPARSE_FFN_TESTS_INTEGRATION_RAW_CALL_H_
#define SPARSE_FFN_TESTS_INTEGRATION_RAW_CALL_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/grpcpp.h"

namespace sparse_ffn {

// Sends a request, then any number of messages more; takes any number of
// replies. Waits for each. One thread.
class RawCall {
 public:
  RawCall(const std::shared_ptr<grpc::Channel>& channel,
          const std::string& method, const std::string& request)
      : stub_(channel) {
    call_ = stub_.PrepareCall(&context_, method, &queue_);
    call_->StartCall(this);
    EXPECT_TRUE(Wait());
    Send(request);
  }
  ~RawCall() {
    context_.TryCancel();
    grpc::Status status;
    call_->Finish(&status, this);
    Wait();
    queue_.Shutdown();
  }
  RawCall(const RawCall&) = delete;
  RawCall& operator=(const RawCall&) = delete;

  void Send(const std::string& message) {
    grpc::Slice slice(message);
    call_->Write(grpc::ByteBuffer(&slice, 1), this);
    EXPECT_TRUE(Wait());
  }

  // The next reply, or "ended".
  std::string Next() {
    grpc::ByteBuffer reply;
    call_->Read(&reply, this);
    if (!Wait()) return "ended";
    std::vector<grpc::Slice> slices;
    reply.Dump(&slices);
    std::string bytes;
    for (const grpc::Slice& slice : slices) {
      bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
    return bytes;
  }

 private:
  bool Wait() {
    void* tag = nullptr;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }

  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_TESTS_INTEGRATION_RAW_CALL_H_
