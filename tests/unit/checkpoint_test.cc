// Checkpoint folders: single files, shards, and all the ways they can disagree.
#include "server/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/unit/checkpoint_files.h"

namespace sparse_ffn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr size_t kHidden = 6;
constexpr size_t kNeurons = 10;

class CheckpointTest : public testing::Test {
 protected:
  void SetUp() override { WriteConfig(ConfigJson(kHidden, kNeurons, 4)); }

  void WriteConfig(const std::string& text) {
    WriteBytes(folder_.File("config.json"), text);
  }
  void WriteTensors(const std::string& name,
                    const std::vector<RawTensor>& tensors) {
    WriteBytes(folder_.File(name), SafetensorsBytes(tensors));
  }
  void WriteSingle(const std::vector<RawTensor>& tensors) {
    WriteTensors("model.safetensors", tensors);
  }
  void WriteIndex(const std::string& text) {
    WriteBytes(folder_.File("model.safetensors.index.json"), text);
  }
  // An index that maps these layers' tensors to the given files.
  static std::string IndexOf(const std::vector<std::string>& shard_of_layer) {
    std::string text = R"({"metadata":{"total_size":1},"weight_map":{)";
    for (size_t layer = 0; layer < shard_of_layer.size(); ++layer) {
      for (const char* projection : {"gate_proj", "up_proj", "down_proj"}) {
        absl::StrAppend(&text, "\"model.layers.", layer, ".mlp.", projection,
                        ".weight\":\"", shard_of_layer[layer], "\",");
      }
    }
    text.back() = '}';
    return text + "}";
  }
  absl::StatusOr<Checkpoint> Open() { return Checkpoint::Open(folder_.path()); }
  std::string Error() { return std::string(Open().status().message()); }

  const TempFolder folder_;
};

std::vector<RawTensor> Concatenate(std::vector<RawTensor> a,
                                   const std::vector<RawTensor>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST_F(CheckpointTest, OpensASingleFile) {
  std::vector<RawTensor> tensors = LayerOf(2, kHidden, kNeurons);
  tensors.push_back({"model.norm.weight", "I64", {6}, std::string(48, 'n')});
  tensors.push_back(
      {"model.layers.2.mlp.gate_proj.weight_scale", "F8_E5M2", {3}, "abc"});
  WriteSingle(Concatenate(tensors, LayerOf(0, kHidden, kNeurons)));
  absl::StatusOr<Checkpoint> opened = Open();
  ASSERT_TRUE(opened.ok()) << opened.status();
  const Checkpoint checkpoint = *std::move(opened);
  EXPECT_THAT(checkpoint.layers(), ElementsAre(0, 2));
  EXPECT_EQ(checkpoint.dtype(), DataType::kFloat32);
  EXPECT_EQ(checkpoint.config().hidden_size, kHidden);
  EXPECT_THAT(folder_.path(), testing::EndsWith("/" + checkpoint.name()));
  EXPECT_TRUE(absl::IsNotFound(checkpoint.Layer(1).status()));

  absl::StatusOr<LayerTensors> layer = checkpoint.Layer(2);
  ASSERT_TRUE(layer.ok()) << layer.status();
  EXPECT_EQ(layer->down_proj.rows, kHidden);
  EXPECT_EQ(layer->down_proj.cols, kNeurons);
  std::vector<float> row(kNeurons);
  ASSERT_EQ(checkpoint.ReadRows(layer->down_proj, 4, 1, row.data()),
            absl::OkStatus());
  for (size_t col = 0; col < kNeurons; ++col) {
    EXPECT_EQ(row[col], FfnElement(2, "down_proj", 4, col));
  }
  checkpoint.Prefetch(2);
  checkpoint.Prefetch(17);
}

TEST_F(CheckpointTest, TheNameIsTheFoldersEvenWithASlashBehindIt) {
  WriteSingle(LayerOf(0, kHidden, kNeurons));
  absl::StatusOr<Checkpoint> checkpoint =
      Checkpoint::Open(folder_.path() + "/./");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT(folder_.path(), testing::EndsWith("/" + checkpoint->name()));
}

TEST_F(CheckpointTest, OpensShardsAndLinksToThem) {
  WriteIndex(IndexOf({"a.safetensors", "b.safetensors"}));
  WriteTensors("blob", LayerOf(0, kHidden, kNeurons));
  ASSERT_EQ(symlink("./blob", folder_.File("a.safetensors").c_str()), 0);
  WriteTensors("b.safetensors", LayerOf(1, kHidden, kNeurons));
  absl::StatusOr<Checkpoint> checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT(checkpoint->layers(), ElementsAre(0, 1));
}

TEST_F(CheckpointTest, ShardsOutsideTheFolderAreRefused) {
  for (const char* shard :
       {"../a.safetensors", "/etc/passwd", "sub/a.safetensors", "..", ".", "",
        "a\\\\b", "a\\u0000b", "\\u002e\\u002e\\u002fa"}) {
    SCOPED_TRACE(shard);
    WriteIndex(IndexOf({shard}));
    EXPECT_THAT(Error(), HasSubstr("a file name inside the folder"));
    // Also for a tensor that is not looked at.
    WriteIndex(
        absl::StrCat(R"({"weight_map":{"model.norm.weight":")", shard, "\"}}"));
    EXPECT_THAT(Error(), HasSubstr("a file name inside the folder"));
  }
}

TEST_F(CheckpointTest, BadIndexesAreErrors) {
  const struct {
    const char* text;
    const char* message;
  } kCases[] = {
      {"", "expected JSON"},
      {"[]", "expected an object, found an array"},
      {"{}", "expected a weight_map"},
      {R"({"weight_map": []})", "expected an object as weight_map"},
      {R"({"weight_map": "a"})", "expected an object as weight_map"},
      {R"({"weight_map": {}, "weight_map": {}})", "found two"},
      {R"({"weight_map": {"a": 1}})", "found 1"},
      {R"({"weight_map": {"a": ["b"]}})", "found an array"},
      {R"({"weight_map": {"a": {"b": "c"}}})", "found an object"},
      {R"({"weight_map": {"a": null}})", "found null"},
      {R"({"weight_map": {}})", "found none"},
      {R"({"weight_map": {"model.layers.0.mlp.up_proj.weight": "a",
                          "model.layers.0.mlp.up_proj.weight": "b"}})",
       "found it twice"},
  };
  for (const auto& [text, message] : kCases) {
    SCOPED_TRACE(text);
    WriteIndex(text);
    EXPECT_THAT(Error(), HasSubstr(message));
  }
  WriteIndex("{\"a\":" + std::string(100'000, '['));
  EXPECT_THAT(Error(), HasSubstr("nesting depth"));
}

TEST_F(CheckpointTest, IndexAndShardsMustAgree) {
  WriteTensors("a.safetensors", LayerOf(0, kHidden, kNeurons));
  WriteIndex(IndexOf({"a.safetensors", "a.safetensors"}));
  EXPECT_THAT(Error(), HasSubstr("found no such tensor"));
  WriteIndex(R"({"weight_map":{"model.layers.0.mlp.up_proj.weight":)"
             R"("a.safetensors"}})");
  EXPECT_THAT(Error(), HasSubstr("found no entry"));
  WriteIndex(IndexOf({"a.safetensors", "absent.safetensors"}));
  EXPECT_TRUE(absl::IsNotFound(Open().status()));
  EXPECT_THAT(Error(), HasSubstr("absent.safetensors"));
  // One tensor in two shards.
  WriteIndex(IndexOf({"a.safetensors", "b.safetensors"}));
  WriteTensors("b.safetensors", Concatenate(LayerOf(0, kHidden, kNeurons),
                                            LayerOf(1, kHidden, kNeurons)));
  EXPECT_THAT(Error(), HasSubstr("it to be listed for this file"));
}

TEST_F(CheckpointTest, WrongLayersAreErrors) {
  for (const char* number :
       {"00", "01", "4", "4294967296", "18446744073709551616", "-1", "+1",
        "1e0", "", " 1", "0x1", "1.0"}) {
    SCOPED_TRACE(number);
    std::vector<RawTensor> tensors = LayerOf(0, kHidden, kNeurons);
    for (RawTensor& tensor : tensors) {
      tensor.name.replace(13, 1, number);
    }
    WriteSingle(tensors);
    EXPECT_THAT(Error(), HasSubstr("expected a layer from 0 to 3"));
  }
}

TEST_F(CheckpointTest, WrongTensorsAreErrors) {
  const std::vector<RawTensor> good = LayerOf(0, kHidden, kNeurons);
  for (size_t missing = 0; missing < good.size(); ++missing) {
    std::vector<RawTensor> tensors = good;
    tensors.erase(tensors.begin() + static_cast<int64_t>(missing));
    WriteSingle(tensors);
    EXPECT_THAT(Error(), HasSubstr(good[missing].name));
    EXPECT_THAT(Error(), HasSubstr("found no such tensor"));
  }
  std::vector<RawTensor> tensors = good;
  tensors[1].dtype = "BF16";
  tensors[1].data.resize(kHidden * kNeurons * 2);
  WriteSingle(tensors);
  EXPECT_THAT(Error(), HasSubstr("expected float32 as in"));

  tensors = good;
  std::swap(tensors[2].shape[0], tensors[2].shape[1]);
  WriteSingle(tensors);
  EXPECT_THAT(Error(), HasSubstr("expected shape [6, 10] (from config.json), "
                                 "found [10, 6]"));
  tensors = good;
  tensors.push_back(
      {"model.layers.0.mlp.up_proj.bias", "F32", {1}, std::string(4, '\0')});
  WriteSingle(tensors);
  EXPECT_THAT(Error(), HasSubstr("an FFN without biases"));

  WriteSingle({{"model.norm.weight", "F32", {1}, "1234"}});
  EXPECT_THAT(Error(), HasSubstr("model.layers.0.mlp.gate_proj.weight"));

  WriteSingle(good);
  WriteConfig(ConfigJson(kHidden + 1, kNeurons, 4));
  EXPECT_THAT(Error(), HasSubstr("expected shape"));
}

TEST_F(CheckpointTest, MissingAndOddFilesAreErrorsAtOnce) {
  EXPECT_THAT(Error(), HasSubstr("found neither"));
  ASSERT_EQ(mkfifo(folder_.File("model.safetensors").c_str(), 0600), 0);
  EXPECT_THAT(Error(), HasSubstr("found a FIFO"));
  unlink(folder_.File("model.safetensors").c_str());
  ASSERT_EQ(mkdir(folder_.File("model.safetensors").c_str(), 0700), 0);
  EXPECT_THAT(Error(), HasSubstr("found a directory"));
  rmdir(folder_.File("model.safetensors").c_str());

  ASSERT_EQ(mkfifo(folder_.File("shard").c_str(), 0600), 0);
  WriteIndex(IndexOf({"shard"}));
  EXPECT_THAT(Error(), HasSubstr("found a FIFO"));
  unlink(folder_.File("config.json").c_str());
  EXPECT_THAT(Error(), HasSubstr("config.json"));
  EXPECT_THAT(
      std::string(Checkpoint::Open(folder_.File("absent")).status().message()),
      HasSubstr("absent/config.json"));
}

}  // namespace
}  // namespace sparse_ffn
