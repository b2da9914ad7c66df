#include "client/make_model/output_folder.h"

#include <filesystem>
#include <set>
#include <system_error>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/checkpoint/checkpoint.h"

namespace sparse_ffn {
namespace {

absl::Status Failed(const std::string& path, const char* what,
                    const std::error_code& error) {
  return absl::FailedPreconditionError(
      absl::StrCat(path, ": cannot be ", what, ": ", error.message()));
}

// Whether ShardFile gives this name for some shard of several.
bool IsOneOfShards(const std::string& name) {
  std::string digits_as_zeros = name;
  for (char& c : digits_as_zeros) {
    if (absl::ascii_isdigit(static_cast<unsigned char>(c))) c = '0';
  }
  return digits_as_zeros == "model-00000-of-00000.safetensors";
}

bool IsWeights(const std::string& name) {
  return name == ShardFile(0, 1) || name == kIndexFile || IsOneOfShards(name);
}

absl::StatusOr<std::vector<std::string>> NamesIn(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator at(folder, error);
  for (; !error && at != std::filesystem::directory_iterator();
       at.increment(error)) {
    names.push_back(at->path().filename().string());
  }
  if (error) return Failed(folder, "read", error);
  return names;
}

std::set<std::string> WeightsOf(size_t shards) {
  std::set<std::string> names;
  for (size_t shard = 0; shard < shards; ++shard) {
    names.insert(ShardFile(shard, shards));
  }
  if (shards > 1) names.insert(kIndexFile);
  return names;
}

}  // namespace

std::string ShardFile(size_t shard, size_t shards) {
  if (shards == 1) return kSingleFile;
  return absl::StrFormat("model-%05d-of-%05d.safetensors", shard + 1, shards);
}

absl::Status PrepareFolder(const std::string& folder, size_t shards) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return Failed(folder, "made a folder", error);
  absl::StatusOr<std::vector<std::string>> names = NamesIn(folder);
  if (!names.ok()) return names.status();
  bool has_inputs = false;
  bool has_checkpoint = false;
  for (const std::string& name : *names) {
    has_inputs = has_inputs || name == kInputsFile;
    has_checkpoint = has_checkpoint || name == kConfigFile || IsWeights(name);
  }
  if (has_checkpoint && !has_inputs) {
    return absl::FailedPreconditionError(
        absl::StrCat(folder,
                     ": expected no checkpoint, or one that this program made, "
                     "found one without ",
                     kInputsFile));
  }
  const std::set<std::string> kept = WeightsOf(shards);
  for (const std::string& name : *names) {
    if (!IsWeights(name) || kept.count(name) != 0) continue;
    const std::string path = absl::StrCat(folder, "/", name);
    if (!std::filesystem::remove(path, error) && error) {
      return Failed(path, "removed", error);
    }
  }
  return absl::OkStatus();
}

}  // namespace sparse_ffn
