// The seam between the server and the hardware: a backend holds the FFN weights
// of some layers, a lane computes one batch at a time. Two implementations, the
// portable one and the CUDA one, give the same results to within the order of
// float32 sums and, on CUDA, the rounding of h described below.
//
// For one token x, with n = intermediate_size neurons:
//   step 1, gate: s = activation(gate_proj x)            [n], dense
//   step 2, up:   h = s * (up_proj x)                    where s_j != 0
//   step 3, down: y = sum over j of h_j * down_proj[j]   where h_j != 0
// Scores are compared with the threshold as float32 sums, before any rounding.
// h stays float32, but in the CUDA backend: there the dense path rounds it to
// weights_dtype once, and sparse batches, unless deterministic, to the sum of
// two such numbers. A NaN score counts as active, so that NaN is never hidden.
// On the portable backend the bits of y depend on x and the weights alone, not
// on the batch, the threads or, where all weights are finite, the path.
#ifndef SPARSE_FFN_KERNELS_FFN_BACKEND_H_
#define SPARSE_FFN_KERNELS_FFN_BACKEND_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/matrix.h"

namespace sparse_ffn {

enum class Activation : uint8_t {
  kRelu,     // s = g where g > 0
  kFatRelu,  // s = g where g >= threshold; with threshold 0 the same as relu
  kDRelu,    // as kRelu, and up_proj x is clamped at 0 too: h = s * relu(u)
};

// "relu", "fatrelu" or "drelu".
const char* ActivationName(Activation activation);

// INVALID_ARGUMENT, naming the three that are known, for any other name.
absl::StatusOr<Activation> ParseActivation(const std::string& name);

// One layer. All three matrices are neuron-major, [intermediate, hidden]: row j
// is neuron j, down_proj comes transposed. Views: AddLayer copies what it
// keeps.
struct FfnWeights {
  ConstMatrix gate_proj;
  ConstMatrix up_proj;
  ConstMatrix down_proj;
};

// What every layer and lane of a backend has in common.
struct FfnConfig {
  size_t hidden_size = 0;
  size_t intermediate_size = 0;
  size_t num_layers = 0;  // AddLayer calls to come; memory is checked for them.
  size_t max_batch_tokens = 0;
  DataType weights_dtype = DataType::kBFloat16;
  Activation activation = Activation::kRelu;
  float threshold = 0;  // Finite, >= 0; 0 unless activation is kFatRelu.
  // Whether a token's row of the output depends, to the bit, on nothing but the
  // weights, its hidden state, the execution asked for, the device and the
  // version of the software: not on the other tokens of its batch, its place
  // among them, what ran before, max_batch_tokens or the number of threads. To
  // the device belong the vector instructions of the portable backend and the
  // version of cuBLAS on CUDA. The portable backend is always so. On CUDA kAuto
  // then is kSparse, sparse batches run in passes (FfnStats) of up to 32 tokens
  // on newer devices, where the sizes allow, else of one, and each dense
  // product is of exactly 128 tokens, the last ones of a batch padded.
  bool deterministic = false;
  // For how long, in microseconds, a launch may wait on a CUDA device for the
  // batch of up to 16 tokens that it was made for before that came; 0: none is
  // made. Only the batch that also came next the last two times is foreseen,
  // and only where the backend has one lane: the launch keeps other work from
  // the device. No bit depends on it.
  uint32_t launch_ahead_us = 0;
};

// What both backends accept, at most.
inline constexpr size_t kMaxBatchTokens = 8192;
inline constexpr int kMaxCpuThreads = 1024;
inline constexpr uint32_t kMaxLaunchAheadUs = 1'000'000;

// Which kernels may run for a batch; both kinds are exact.
enum class Execution : uint8_t { kAuto, kSparse, kDense };

// Which kernels ran. Fused: the sparse path with steps 1 and 2 in one kernel,
// and, for one token or on newer devices two, step 3 too.
enum class FfnPath : uint8_t { kSparse, kDense, kFused };
inline constexpr size_t kFfnPaths = 3;

// "sparse", "dense" or "fused".
const char* FfnPathName(FfnPath path);

// How long a batch took on one path, host memory to host memory.
struct PathCost {
  FfnPath path = FfnPath::kSparse;
  size_t tokens = 0;         // 1 to kMaxBatchTokens.
  double union_density = 0;  // Share of neurons in the union, in [0, 1], where
                             // there are passes the most of any; 0 for the
                             // dense path, whose time it does not change.
  double microseconds = 0;   // Finite, > 0.
};

// Tokens of a batch, side by side, that ran at once and read weights together.
struct FfnPass {
  uint32_t tokens = 0;
  uint32_t union_active_neurons = 0;  // Active for at least one of them.
};

// Of one batch. Durations in nanoseconds, 0 where not measured. The activation,
// the threshold and the choice of the active neurons count to gate_ns on the
// portable backend and for one token of the sparse path on CUDA, else to up_ns:
// there they open step 2. The fused path has no steps to measure, and on CUDA a
// deterministic backend measures none.
struct FfnStats {
  absl::Span<const uint32_t> active_neurons;  // [tokens]; the lane owns it.
  // Active for at least one token; where there are passes, the most of any.
  uint32_t union_active_neurons = 0;
  // Where a batch ran as several, one after the other, as fused ones of more
  // than 32 tokens do on CUDA: those, in the order of their tokens; the lane
  // owns it. Durations are those of the whole batch. Empty where all tokens ran
  // at once, and of dense batches.
  absl::Span<const FfnPass> passes;
  FfnPath path = FfnPath::kSparse;
  bool launched_ahead = false;  // Its launch waited for it.
  uint64_t copy_in_ns = 0;      // Host to device, where there is such a copy.
  uint64_t gate_ns = 0;
  uint64_t up_ns = 0;
  uint64_t down_ns = 0;
  uint64_t copy_out_ns = 0;
  uint64_t compute_ns = 0;  // Whole Run, by the host's clock.
};

struct FfnResult {
  ConstMatrix output;  // float32 [tokens, hidden]; the lane owns it.
  FfnStats stats;
};

// One batch in flight: stream, staging, scratch, all made for max_batch_tokens
// at construction; Run allocates nothing. Used by one thread at a time; lanes
// of one backend may run side by side. Must not outlive its backend.
class FfnLane {
 public:
  virtual ~FfnLane() = default;

  // Where the caller puts the hidden states of the next batch: [tokens,
  // hidden_size] of weights_dtype, 64-byte aligned. 1 <= tokens <=
  // max_batch_tokens. Valid until the lane is destroyed; overwritten by nobody
  // else. Rows keep their place whatever `tokens` is.
  virtual Matrix input(size_t tokens) = 0;

  // Computes the first `tokens` rows of the input through `layer`. Blocks. The
  // result is valid until the next Run. NOT_FOUND for a layer that was not
  // added, INVALID_ARGUMENT for a token count out of range, INTERNAL when the
  // device reports an error (the backend is then unusable).
  virtual absl::StatusOr<FfnResult> Run(int layer, size_t tokens,
                                        Execution execution) = 0;
};

class FfnBackend {
 public:
  virtual ~FfnBackend() = default;

  // "cpu" or "cuda".
  virtual const char* name() const = 0;
  // Name of the processor or GPU.
  virtual const std::string& device_name() const = 0;
  // Of all layers added so far, on the device.
  virtual size_t weights_bytes() const = 0;

  // Copies the weights, which must have the shape and type of the FfnConfig
  // (INVALID_ARGUMENT otherwise). ALREADY_EXISTS for a layer added before,
  // RESOURCE_EXHAUSTED when memory runs out. Not while a lane runs.
  virtual absl::Status AddLayer(int layer, const FfnWeights& weights) = 0;

  // RESOURCE_EXHAUSTED when memory runs out.
  virtual absl::StatusOr<std::unique_ptr<FfnLane>> NewLane() = 0;

  // Times the paths that Execution::kAuto chooses from, for SetPathCosts: sends
  // random hidden states through the layers added so far, small batches first.
  // Stops after about `seconds` with what it has. Needs the memory of one lane
  // while it runs. `progress` is called between batches, after each number of
  // tokens. Not while a lane runs. Empty where the choice needs no such times,
  // as on the portable and on deterministic backends. Errors are those of
  // NewLane and Run.
  virtual absl::StatusOr<std::vector<PathCost>> MeasurePaths(
      double /*seconds*/, const std::function<void()>& /*progress*/) {
    return std::vector<PathCost>();
  }

  // From now on lanes choose by these times; where there are none, as before
  // the first call, by a fixed rule. Not while a lane runs. INVALID_ARGUMENT,
  // naming the entry, for times that break the limits of PathCost or come
  // twice; FAILED_PRECONDITION for a CUDA backend that is deterministic or has
  // a SparseForm but kAuto.
  virtual absl::Status SetPathCosts(absl::Span<const PathCost> /*costs*/) {
    return absl::OkStatus();
  }

  // Largest share of neurons in the union, in hundredths, up to which
  // Execution::kAuto does not take the dense path for a batch of `tokens`;
  // negative where it always does, 1 where the union does not decide.
  virtual float SparseUpTo(size_t /*tokens*/) const { return 1; }
};

inline bool IsCuda(const FfnBackend& backend) {
  return std::string_view(backend.name()) == "cuda";
}

// Runs on the processor, with the widest vector instructions it has. `threads`
// counts the lane's own thread; 0 means one for each processor this process may
// run on. Accepts all three data types. INVALID_ARGUMENT for a bad config,
// RESOURCE_EXHAUSTED where num_layers do not fit in the available memory.
absl::StatusOr<std::unique_ptr<FfnBackend>> NewCpuBackend(
    const FfnConfig& config, int threads);

// How the CUDA backend runs sparse batches. All but kAuto are for tests, and
// take no path costs. Deterministic backends take all but kSteps, whose sums
// are made in any order; there kAuto is kFused.
enum class SparseForm : uint8_t {
  kAuto,           // fused where that is fast, but for batches that are timed
  kSteps,          // never fused
  kFused,          // where there is a fused form for the device and the sizes
  kFusedPortable,  // the same, without features of newer devices
};

// Runs on CUDA device `device`. Accepts float16 and bfloat16. INVALID_ARGUMENT
// for a bad config, UNAVAILABLE where there is no driver, no such device, or
// the build has no CUDA; RESOURCE_EXHAUSTED where num_layers do not fit in the
// device's free memory.
absl::StatusOr<std::unique_ptr<FfnBackend>> NewCudaBackend(
    const FfnConfig& config, int device, SparseForm form = SparseForm::kAuto);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_KERNELS_FFN_BACKEND_H_
