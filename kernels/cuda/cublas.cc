#include "kernels/cuda/cublas.h"

#include <dlfcn.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sparse_ffn::cuda {
namespace {

// By hand, so that nothing is allocated while requests run.
constexpr size_t kWorkspaceBytes = size_t{32} << 20;

// cublasGemmEx is overloaded in the header; this is the exported one.
using GemmEx = cublasStatus_t (*)(cublasHandle_t, cublasOperation_t,
                                  cublasOperation_t, int, int, int, const void*,
                                  const void*, cudaDataType, int, const void*,
                                  cudaDataType, int, const void*, void*,
                                  cudaDataType, int, cublasComputeType_t,
                                  cublasGemmAlgo_t);

// What we call of the library, under its own names and types.
struct Library {
  decltype(&cublasCreate_v2) create = nullptr;
  decltype(&cublasDestroy_v2) destroy = nullptr;
  decltype(&cublasSetStream_v2) set_stream = nullptr;
  decltype(&cublasSetWorkspace_v2) set_workspace = nullptr;
  decltype(&cublasSetMathMode) set_math_mode = nullptr;
  GemmEx gemm = nullptr;
  absl::Status status;
};

template <typename Function>
bool Resolve(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  return *function != nullptr;
}

Library OpenLibrary() {
  const std::string name = absl::StrCat("libcublas.so.", CUBLAS_VER_MAJOR);
  void* opened = nullptr;
  for (const std::string& path :
       {name, absl::StrCat("/usr/local/cuda/lib64/", name)}) {
    opened = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (opened != nullptr) break;
  }
  Library library;
  if (opened == nullptr) {
    library.status = absl::UnavailableError(
        absl::StrCat("cuBLAS is needed for the cuda backend and ", name,
                     " cannot be opened; install it or add its folder to "
                     "LD_LIBRARY_PATH"));
  } else if (!Resolve(opened, "cublasCreate_v2", &library.create) ||
             !Resolve(opened, "cublasDestroy_v2", &library.destroy) ||
             !Resolve(opened, "cublasSetStream_v2", &library.set_stream) ||
             !Resolve(opened, "cublasSetWorkspace_v2",
                      &library.set_workspace) ||
             !Resolve(opened, "cublasSetMathMode", &library.set_math_mode) ||
             !Resolve(opened, "cublasGemmEx", &library.gemm)) {
    library.status = absl::UnavailableError(
        absl::StrCat(name, " lacks functions of its own version"));
  }
  return library;
}

const Library& GetLibrary() {
  static const Library& library = *new Library(OpenLibrary());
  return library;
}

absl::Status ToStatus(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  const std::string message =
      absl::StrCat(what, ": cuBLAS status ", static_cast<int>(status));
  if (status == CUBLAS_STATUS_ALLOC_FAILED) {
    return absl::ResourceExhaustedError(message);
  }
  return absl::InternalError(message);
}

cudaDataType_t ToCublas(Element element) {
  return element == Element::kFloat16 ? CUDA_R_16F : CUDA_R_16BF;
}

}  // namespace

void Cublas::HandleDeleter::operator()(cublasHandle_t handle) const {
  GetLibrary().destroy(handle);
}

absl::StatusOr<Cublas> Cublas::New(cudaStream_t stream) {
  const Library& library = GetLibrary();
  if (!library.status.ok()) return library.status;
  Cublas cublas;
  auto workspace = NewDeviceMemory(kWorkspaceBytes);
  if (!workspace.ok()) return workspace.status();
  cublas.workspace_ = *std::move(workspace);
  cublasHandle_t handle = nullptr;
  absl::Status status = ToStatus(library.create(&handle), "cublasCreate");
  if (!status.ok()) return status;
  cublas.handle_.reset(handle);
  status.Update(
      ToStatus(library.set_stream(handle, stream), "cublasSetStream"));
  status.Update(ToStatus(
      library.set_workspace(handle, cublas.workspace_.get(), kWorkspaceBytes),
      "cublasSetWorkspace"));
  status.Update(
      ToStatus(library.set_math_mode(
                   handle, CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION),
               "cublasSetMathMode"));
  if (!status.ok()) return status;
  return cublas;
}

// cuBLAS is column-major: it computes out^T [n, tokens].
absl::Status Cublas::ProductWithRows(Element element, int tokens, int n, int k,
                                     const void* x, const void* weights,
                                     float* out) const {
  const float one = 1;
  const float zero = 0;
  const cudaDataType_t type = ToCublas(element);
  return ToStatus(
      GetLibrary().gemm(handle_.get(), CUBLAS_OP_T, CUBLAS_OP_N, n, tokens, k,
                        &one, weights, type, k, x, type, k, &zero, out,
                        CUDA_R_32F, n, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
      "cublasGemmEx");
}

absl::Status Cublas::Product(Element element, int tokens, int n, int k,
                             const void* x, const void* weights,
                             float* out) const {
  const float one = 1;
  const float zero = 0;
  const cudaDataType_t type = ToCublas(element);
  return ToStatus(
      GetLibrary().gemm(handle_.get(), CUBLAS_OP_N, CUBLAS_OP_N, n, tokens, k,
                        &one, weights, type, n, x, type, k, &zero, out,
                        CUDA_R_32F, n, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
      "cublasGemmEx");
}

}  // namespace sparse_ffn::cuda
