// The base of backends that tests make up.
#ifndef SPARSE_FFN_TESTS_UNIT_NAMED_BACKEND_H_
#define SPARSE_FFN_TESTS_UNIT_NAMED_BACKEND_H_

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/ffn_backend.h"

namespace sparse_ffn {

// Has a name, and no lane.
class NamedBackend : public FfnBackend {
 public:
  explicit NamedBackend(const char* name) : name_(name) {}

  const char* name() const override { return name_; }
  const std::string& device_name() const override { return device_name_; }
  size_t weights_bytes() const override { return 0; }
  absl::Status AddLayer(int, const FfnWeights&) override { return {}; }
  absl::StatusOr<std::unique_ptr<FfnLane>> NewLane() override {
    return absl::UnimplementedError("no lane");
  }

 private:
  const char* const name_;
  const std::string device_name_ = "gpu";
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_TESTS_UNIT_NAMED_BACKEND_H_
