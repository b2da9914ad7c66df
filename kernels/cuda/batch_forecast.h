// Which batch comes next, as far as the order of those before tells: decoding
// goes through the layers in turn.
#ifndef SPARSE_FFN_KERNELS_CUDA_BATCH_FORECAST_H_
#define SPARSE_FFN_KERNELS_CUDA_BATCH_FORECAST_H_

#include <cstddef>
#include <map>
#include <optional>
#include <utility>
#include <vector>

namespace sparse_ffn::cuda {

class BatchForecast {
 public:
  using Batch = std::pair<int, size_t>;  // Its layer, its tokens.

  // Only `batches` are ever foreseen.
  explicit BatchForecast(const std::vector<Batch>& batches) {
    for (const Batch& batch : batches) successors_[batch] = {};
  }

  // Batches in the order in which they run; null: one of another kind.
  void Add(std::optional<Batch> batch) {
    if (batch.has_value() && !successors_.contains(*batch)) batch.reset();
    if (last_.has_value()) {
      Successor& successor = successors_[*last_];
      successor.steady = successor.batch == batch;
      successor.batch = batch;
    }
    last_ = batch;
  }

  // What came after the batch added last, where it was the same the last two
  // times.
  std::optional<Batch> Next() const {
    if (!last_.has_value()) return std::nullopt;
    const Successor& successor = successors_.at(*last_);
    return successor.steady ? successor.batch : std::nullopt;
  }

 private:
  struct Successor {
    std::optional<Batch> batch;
    bool steady = false;
  };

  std::map<Batch, Successor> successors_;
  std::optional<Batch> last_;
};

}  // namespace sparse_ffn::cuda

#endif  // SPARSE_FFN_KERNELS_CUDA_BATCH_FORECAST_H_
