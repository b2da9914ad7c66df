// Requests that the service must refuse, in unary calls and in streams, which
// live on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "server/service/forward_messages.h"
#include "tests/integration/raw_call.h"
#include "tests/integration/service_test.h"

namespace sparse_ffn {
namespace {

using testing::HasSubstr;

struct BadRequest {
  std::string name;
  v1::ForwardRequest request;
  grpc::StatusCode code;
  std::vector<std::string> words;  // Of the message.
};

std::vector<BadRequest> BadRequests() {
  const auto changed = [](const auto& change) {
    v1::ForwardRequest request = MakeRequest(9, 2);
    change(&request);
    return request;
  };
  const auto with_value = [&](float value) {
    return changed([value](v1::ForwardRequest* request) {
      std::memcpy(request->mutable_hidden_states()->data() +
                      (kHiddenSize + 2) * sizeof(float),
                  &value, sizeof(value));
    });
  };
  using Request = v1::ForwardRequest;
  constexpr auto kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
  return {
      {"no tokens",
       changed([](Request* r) { r->set_tokens(0); }),
       kInvalid,
       {"tokens is 0", "1 to 8"}},
      {"too many tokens",
       MakeRequest(9, 9),
       kInvalid,
       {"tokens is 9", "1 to 8"}},
      {"no dtype",
       changed([](Request* r) { r->set_dtype(v1::DATA_TYPE_UNSPECIFIED); }),
       kInvalid,
       {"dtype is 0", "float32"}},
      {"unknown dtype",
       changed([](Request* r) { r->set_dtype(static_cast<v1::DataType>(9)); }),
       kInvalid,
       {"dtype is 9"}},
      {"unknown execution",
       changed(
           [](Request* r) { r->set_execution(static_cast<v1::Execution>(7)); }),
       kInvalid,
       {"execution is 7", "dense"}},
      {"too few bytes",
       changed([](Request* r) { r->mutable_hidden_states()->pop_back(); }),
       kInvalid,
       {"31 bytes", "32 bytes", "2 tokens of 4 float32"}},
      {"no bytes",
       changed([](Request* r) { r->clear_hidden_states(); }),
       kInvalid,
       {"0 bytes", "32 bytes"}},
      {"bytes of another type",
       changed([](Request* r) { r->set_dtype(v1::DATA_TYPE_FLOAT16); }),
       kInvalid,
       {"32 bytes", "16 bytes"}},
      {"unknown layer",
       changed([](Request* r) { r->set_layer(2); }),
       grpc::StatusCode::NOT_FOUND,
       {"layer 2", "0-1, 5"}},
      {"layer beyond int",
       changed([](Request* r) { r->set_layer(4294967295U); }),
       grpc::StatusCode::NOT_FOUND,
       {"layer 4294967295"}},
      {"NaN", with_value(NAN), kInvalid, {"nan", "token 1, column 2"}},
      {"infinity",
       with_value(-INFINITY),
       kInvalid,
       {"-inf", "token 1, column 2", "a finite value"}},
  };
}

class UnsentTask final : public FfnTask {
 public:
  void Done(const absl::StatusOr<FfnTaskResult>& /*result*/) override {}
};

TEST(ReadRequestTest, RefusesWhatTheTypeOfTheWeightsCannotHold) {
  struct Case {
    DataType weights;
    float value;
    std::string words;  // Of the message; empty: taken.
  };
  const Case cases[] = {
      {DataType::kFloat16, 1e6F, "token 1, column 2 is 1e+06; expected"},
      {DataType::kFloat16, -65520, "below 65520 in magnitude"},
      {DataType::kFloat16, 65504, ""},
      {DataType::kBFloat16, -3.4e38F, "token 1, column 2 is -3.4e+38; "},
      {DataType::kBFloat16, 3.4e38F, "finite in bfloat16"},
      {DataType::kBFloat16, 3.38e38F, ""},
      {DataType::kFloat32, 3.4e38F, ""},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.value);
    RequestLimits limits = {kHiddenSize, kIntermediateSize, 8, c.weights, {0}};
    v1::ForwardRequest request = MakeRequest(1, 2);
    std::memcpy(request.mutable_hidden_states()->data() +
                    (kHiddenSize + 2) * sizeof(float),
                &c.value, sizeof(c.value));
    UnsentTask task;
    const absl::Status status = ReadRequest(request, limits, &task);
    if (c.words.empty()) {
      EXPECT_EQ(status, absl::OkStatus());
    } else {
      EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr(c.words));
    }
  }
}

TEST_P(ServiceTest, RefusesBadUnaryRequests) {
  double invalid = 0;
  for (const BadRequest& bad : BadRequests()) {
    SCOPED_TRACE(bad.name);
    const grpc::Status status = Forward(bad.request);
    EXPECT_EQ(status.error_code(), bad.code);
    for (const std::string& word : bad.words) {
      EXPECT_THAT(status.error_message(), HasSubstr(word));
    }
    ++invalid;
  }
  EXPECT_EQ(Metric("sparse_ffn_requests_rejected_total{reason=\"invalid\"}"),
            invalid);
  const v1::ForwardRequest good = MakeRequest(1, 1);
  ASSERT_TRUE(Forward(good).ok());
  ExpectReply(good, reply_);
}

TEST_P(ServiceTest, StreamOutlivesBadItems) {
  grpc::ClientContext context;
  auto stream = stub_->StreamForward(&context);
  v1::ForwardReply reply;
  for (const BadRequest& bad : BadRequests()) {
    SCOPED_TRACE(bad.name);
    ASSERT_TRUE(stream->Write(bad.request));
    ASSERT_TRUE(stream->Read(&reply));
    EXPECT_EQ(reply.request_id(), bad.request.request_id());
    EXPECT_EQ(reply.status_code(), bad.code);
    for (const std::string& word : bad.words) {
      EXPECT_THAT(reply.status_message(), HasSubstr(word));
    }
    EXPECT_EQ(reply.hidden_states().size(), 0);
    EXPECT_EQ(reply.tokens(), 0);
    EXPECT_FALSE(reply.has_stats());
    const v1::ForwardRequest good = MakeRequest(100, 2, 5);
    ASSERT_TRUE(stream->Write(good));
    ASSERT_TRUE(stream->Read(&reply));
    ExpectReply(good, reply);
  }
  stream->WritesDone();
  EXPECT_FALSE(stream->Read(&reply));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_P(ServiceTest, StreamOutlivesWhatIsNoRequest) {
  const v1::ForwardRequest good = MakeRequest(100, 2, 5);
  const std::string bytes = good.SerializeAsString();
  RawCall stream(channel_, "/sparse_ffn.v1.FfnService/StreamForward", bytes);
  v1::ForwardReply reply;
  ASSERT_TRUE(reply.ParseFromString(stream.Next()));
  ExpectReply(good, reply);
  for (const std::string& bad :
       {std::string(9, '\xff'), bytes.substr(0, bytes.size() - 1)}) {
    stream.Send(bad);
    ASSERT_TRUE(reply.ParseFromString(stream.Next()));
    EXPECT_EQ(reply.request_id(), 0);
    EXPECT_EQ(reply.status_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(reply.status_message(), HasSubstr("ForwardRequest"));
    EXPECT_THAT(reply.status_message(),
                HasSubstr("got " + std::to_string(bad.size()) + " bytes"));
    stream.Send(bytes);
    ASSERT_TRUE(reply.ParseFromString(stream.Next()));
    ExpectReply(good, reply);
  }
  EXPECT_EQ(Metric("sparse_ffn_requests_rejected_total{reason=\"invalid\"}"),
            2);
  WaitForRequestsInFlight(0);
}

TEST_P(ServiceTest, RefusesCompressedRequests) {
  grpc::ClientContext context;
  context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
  EXPECT_EQ(stub_->Forward(&context, MakeRequest(1, 1), &reply_).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_TRUE(Forward(MakeRequest(2, 1)).ok());
}

TEST_P(ServiceTest, RefusesAMessageBeyondTheLimit) {
  v1::ForwardRequest request = MakeRequest(1, 1);
  request.set_hidden_states(std::string((1 << 20) + 1, '\0'));
  EXPECT_EQ(Forward(request).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  ASSERT_TRUE(Forward(MakeRequest(1, 1)).ok());
}

}  // namespace
}  // namespace sparse_ffn
