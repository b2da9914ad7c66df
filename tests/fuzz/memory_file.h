// A file that exists in memory only, under a path that can be opened.
#ifndef SPARSE_FFN_TESTS_FUZZ_MEMORY_FILE_H_
#define SPARSE_FFN_TESTS_FUZZ_MEMORY_FILE_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace sparse_ffn {

class MemoryFile {
 public:
  MemoryFile();
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  const std::string& path() const { return path_; }
  // Replaces what the file holds.
  void Fill(const uint8_t* data, size_t size);

 private:
  int descriptor_;
  std::string path_;
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_TESTS_FUZZ_MEMORY_FILE_H_
