// The arithmetic that every answer is measured against: the gated FFN in
// float64, term by term, and the largest error that float32 sums can explain.
// Shared by the tests and by `sparse-ffn-client check`; no server runs it.
#ifndef SPARSE_FFN_CLIENT_CLI_ORACLE_H_
#define SPARSE_FFN_CLIENT_CLI_ORACLE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/matrix.h"

namespace sparse_ffn {

// One layer as torch stores it, of one type; any alignment. A view.
struct OracleLayer {
  ConstMatrix gate_proj;   // [intermediate, hidden]
  ConstMatrix up_proj;     // [intermediate, hidden]
  ConstMatrix down_proj;   // [hidden, intermediate]
  std::string activation;  // "relu", "fatrelu" or "drelu"
  double threshold = 0;    // Of fatrelu.
};

struct OracleResult {
  size_t tokens = 0;
  size_t hidden_size = 0;
  std::vector<double> output;  // [tokens, hidden_size]
  // Largest error of an output whose sums are float32 (below): [tokens,
  // hidden_size].
  std::vector<double> tolerance;
  // What it grows by where h is rounded to the weights' type between steps 2
  // and 3, and where it is to the sum of two of them: [tokens, hidden_size].
  std::vector<double> gated_rounding;
  std::vector<double> gated_split_rounding;
  // 1 where a neuron is active for a token, else 0: [tokens, intermediate].
  std::vector<uint8_t> active;
  // Neurons active for each token, and how many neurons, active or not, score
  // so near the threshold that float32 sums may decide either way: [tokens].
  std::vector<uint32_t> active_neurons;
  std::vector<uint32_t> borderline_neurons;
};

// Computes the FFN of `hidden_states` [tokens, hidden], which have the type of
// the weights. Inactive neurons are skipped, not multiplied by 0. A NaN score
// is active. `threads` 0 means one for each processor. INVALID_ARGUMENT for
// shapes or types that do not agree, or an unknown activation.
//
// With e(K, terms) = 2^-23 sqrt(K) sum |terms| for a sum of K terms, the
// tolerance is the root of the sum of squares of what the errors of s_j and
// u_j do to each h_j down_proj[., j], plus e of the sum of step 3, plus all of
// h_j down_proj[., j] for a borderline neuron.
absl::StatusOr<OracleResult> RunOracle(const OracleLayer& layer,
                                       ConstMatrix hidden_states, int threads);

// What h is rounded to between steps 2 and 3.
enum class GatedAs : uint8_t { kFloat32, kTwoOfWeightsType, kOneOfWeightsType };

// Of all elements compared, the one with the largest error for its tolerance.
struct Comparison {
  bool passed = true;      // No error exceeds its tolerance.
  double worst_ratio = 0;  // Error / tolerance; infinite for a wrong NaN.
  double worst_error = 0;
  double worst_tolerance = 0;
  size_t worst_token = 0;  // Row of `served`.
  size_t worst_column = 0;
  size_t misses = 0;  // Elements beyond their tolerance.
};

// Compares `served` [rows, hidden_size] with the rows of `expected` from
// `first_token` on, which must be there. The rounding of a float32 output to
// the type of `served` is allowed for, and that of h as far as `gated` says.
// NaN must come where NaN is expected and nowhere else; infinities never.
Comparison Compare(const OracleResult& expected, size_t first_token,
                   ConstMatrix served, GatedAs gated);

// Whether `active_neurons`, counted with float32 scores for token `token`, is
// what borderline neurons allow.
bool ActiveCountAgrees(const OracleResult& expected, size_t token,
                       uint32_t active_neurons);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_CLI_ORACLE_H_
