#include "tests/fuzz/memory_file.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>

namespace sparse_ffn {

MemoryFile::MemoryFile()
    : descriptor_(memfd_create("fuzz", MFD_CLOEXEC)),
      path_("/proc/self/fd/" + std::to_string(descriptor_)) {
  if (descriptor_ < 0) std::abort();
}

MemoryFile::~MemoryFile() { close(descriptor_); }

void MemoryFile::Fill(const uint8_t* data, size_t size) {
  if (ftruncate(descriptor_, 0) != 0 ||
      pwrite(descriptor_, data, size, 0) != static_cast<ssize_t>(size)) {
    std::abort();
  }
}

}  // namespace sparse_ffn
