#include "kernels/ffn_backend.h"

#include "absl/strings/str_cat.h"

namespace sparse_ffn {

const char* ActivationName(Activation activation) {
  switch (activation) {
    case Activation::kRelu:
      return "relu";
    case Activation::kFatRelu:
      return "fatrelu";
    case Activation::kDRelu:
      break;
  }
  return "drelu";
}

absl::StatusOr<Activation> ParseActivation(const std::string& name) {
  for (Activation activation :
       {Activation::kRelu, Activation::kFatRelu, Activation::kDRelu}) {
    if (name == ActivationName(activation)) return activation;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("activation \"", name.substr(0, 64),
                   "\" is not sparse; expected relu, fatrelu or drelu"));
}

const char* FfnPathName(FfnPath path) {
  switch (path) {
    case FfnPath::kSparse:
      return "sparse";
    case FfnPath::kDense:
      return "dense";
    case FfnPath::kFused:
      break;
  }
  return "fused";
}

}  // namespace sparse_ffn
