#include "server/prepare_paths.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "server/path_costs_file.h"
#include "tests/unit/checkpoint_files.h"
#include "tests/unit/named_backend.h"

namespace sparse_ffn {
namespace {

using testing::HasSubstr;

// Has measured `costs` when it is asked to, and keeps what it is given.
class FakeBackend final : public NamedBackend {
 public:
  using NamedBackend::NamedBackend;

  absl::StatusOr<std::vector<PathCost>> MeasurePaths(
      double seconds, const std::function<void()>& progress) override {
    measured_seconds += seconds;
    progress();
    return costs;
  }
  absl::Status SetPathCosts(absl::Span<const PathCost> given) override {
    if (!set_status.ok()) return set_status;
    set.assign(given.begin(), given.end());
    return {};
  }

  absl::StatusOr<std::vector<PathCost>> costs =
      std::vector<PathCost>{{FfnPath::kDense, 1, 0, 77.5}};
  absl::Status set_status;
  double measured_seconds = 0;
  std::vector<PathCost> set;
};

class PreparePathsTest : public testing::Test {
 protected:
  PreparePathsTest() {
    config_.path_costs = folder_.File("costs.json");
    config_.measure_seconds = 1.5;
    ffn_.hidden_size = 64;
    ffn_.max_batch_tokens = 8;
  }

  // As the server does.
  absl::Status Prepare(FakeBackend* backend) {
    const absl::StatusOr<bool> known = ReadPaths(config_, ffn_, backend);
    if (!known.ok() || *known) return known.status();
    return MeasurePaths(config_, ffn_, backend, [this] { ++progress_; });
  }

  TempFolder folder_;
  ServerConfig config_;
  FfnConfig ffn_;
  int progress_ = 0;
};

TEST_F(PreparePathsTest, MeasuresOnceAndThenReads) {
  FakeBackend first("cuda");
  ASSERT_TRUE(Prepare(&first).ok());
  EXPECT_EQ(first.measured_seconds, 1.5);
  EXPECT_EQ(first.set.size(), 1);
  EXPECT_EQ(progress_, 1);

  FakeBackend second("cuda");
  ASSERT_TRUE(Prepare(&second).ok());
  EXPECT_EQ(second.measured_seconds, 0);
  ASSERT_EQ(second.set.size(), 1);
  EXPECT_EQ(second.set[0].microseconds, 77.5);
}

TEST_F(PreparePathsTest, WithoutAFileItMeasuresEachTime) {
  config_.path_costs.clear();
  for (int i = 0; i < 2; ++i) {
    FakeBackend backend("cuda");
    ASSERT_TRUE(Prepare(&backend).ok());
    EXPECT_EQ(backend.measured_seconds, 1.5);
    EXPECT_EQ(backend.set.size(), 1);
  }
}

TEST_F(PreparePathsTest, WithoutTimeNothingIsMeasuredOrWritten) {
  config_.measure_seconds = 0;
  FakeBackend backend("cuda");
  ASSERT_TRUE(Prepare(&backend).ok());
  EXPECT_EQ(progress_, 0);
  EXPECT_TRUE(backend.set.empty());
  EXPECT_EQ(ReadPathCosts(config_.path_costs, ffn_, "gpu").status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(PreparePathsTest, ThePortableBackendLooksAtNoFile) {
  WriteBytes(config_.path_costs, "nonsense");
  FakeBackend backend("cpu");
  ASSERT_TRUE(Prepare(&backend).ok());
  EXPECT_EQ(progress_, 0);
  EXPECT_TRUE(backend.set.empty());
  EXPECT_EQ(ReadBytes(config_.path_costs), "nonsense");
}

TEST_F(PreparePathsTest, ADeterministicBackendIsNotMeasured) {
  config_.path_costs.clear();
  ffn_.deterministic = true;
  FakeBackend backend("cuda");
  ASSERT_TRUE(Prepare(&backend).ok());
  EXPECT_EQ(progress_, 0);
  EXPECT_TRUE(backend.set.empty());
}

TEST_F(PreparePathsTest, NothingMeasuredIsNotWritten) {
  FakeBackend backend("cuda");
  backend.costs = std::vector<PathCost>();
  ASSERT_TRUE(Prepare(&backend).ok());
  EXPECT_TRUE(backend.set.empty());
  EXPECT_EQ(ReadPathCosts(config_.path_costs, ffn_, "gpu").status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(PreparePathsTest, ErrorsComeThrough) {
  FakeBackend broken("cuda");
  broken.costs = absl::InternalError("the device is gone");
  EXPECT_EQ(Prepare(&broken), absl::InternalError("the device is gone"));

  FakeBackend backend("cuda");
  ASSERT_TRUE(Prepare(&backend).ok());
  backend.set_status = absl::InvalidArgumentError("cost 0 is no cost");
  absl::Status refused = Prepare(&backend);
  EXPECT_EQ(refused.message(), config_.path_costs + ": cost 0 is no cost");

  WriteBytes(config_.path_costs, "nonsense");
  EXPECT_THAT(std::string(Prepare(&backend).message()),
              HasSubstr(config_.path_costs + ": expected JSON"));

  config_.path_costs = folder_.File("no/such/folder");
  FakeBackend measured("cuda");
  EXPECT_THAT(std::string(Prepare(&measured).message()),
              HasSubstr(config_.path_costs));
  EXPECT_EQ(measured.set.size(), 1);
}

}  // namespace
}  // namespace sparse_ffn
