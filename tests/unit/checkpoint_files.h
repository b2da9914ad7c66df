// Checkpoint files for tests, well-formed or not, in folders that vanish.
#ifndef SPARSE_FFN_TESTS_UNIT_CHECKPOINT_FILES_H_
#define SPARSE_FFN_TESTS_UNIT_CHECKPOINT_FILES_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace sparse_ffn {

// An empty folder under the system's temporary one; removed with all it holds.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

void WriteBytes(const std::string& path, const std::string& bytes);
std::string ReadBytes(const std::string& path);

// Header length, header, data.
std::string SafetensorsBytes(const std::string& json, const std::string& data);

struct RawTensor {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape;
  std::string data;
};

// A well-formed file of these tensors, in this order.
std::string SafetensorsBytes(const std::vector<RawTensor>& tensors);

// An FFN tensor of float32 whose elements are small integers that depend on
// layer, projection name and position: every type holds them exactly.
RawTensor FfnTensor(int layer, const std::string& projection, size_t rows,
                    size_t cols);
float FfnElement(int layer, const std::string& projection, size_t row,
                 size_t col);

// gate_proj, up_proj and down_proj of the layer.
std::vector<RawTensor> LayerOf(int layer, size_t hidden_size, size_t neurons);

std::string ConfigJson(size_t hidden_size, size_t neurons, size_t layers,
                       const std::string& more = R"("hidden_act": "relu")");

// Whether `work` returns true in a child process that may take at most `bytes`
// more memory. True without a limit under a sanitizer, which needs its own.
bool SucceedsWithin(size_t bytes, const std::function<bool()>& work);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_TESTS_UNIT_CHECKPOINT_FILES_H_
