#include "server/checkpoint/new_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "tests/unit/checkpoint_files.h"

namespace sparse_ffn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class NewFileTest : public testing::Test {
 protected:
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry :
         std::filesystem::directory_iterator(folder_.path())) {
      names.push_back(entry.path().filename());
    }
    return names;
  }

  TempFolder folder_;
  const std::string path_ = folder_.File("file");
};

TEST_F(NewFileTest, AppearsWhenItIsComplete) {
  WriteBytes(path_, "old");
  auto file = NewFile::Create(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE(file->Append("new", 3).ok());
  EXPECT_EQ(ReadBytes(path_), "old");
  ASSERT_TRUE(file->Finish().ok());
  EXPECT_EQ(ReadBytes(path_), "new");
  EXPECT_THAT(Names(), ElementsAre("file"));
  EXPECT_EQ(file->Append("more", 4).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(NewFileTest, LeavesNothingBehindUnfinished) {
  {
    auto file = NewFile::Create(path_);
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE(file->Append("new", 3).ok());
    const NewFile moved = *std::move(file);
  }
  EXPECT_THAT(Names(), testing::IsEmpty());
}

TEST_F(NewFileTest, WritesBehindLinks) {
  const std::string link = folder_.File("link");
  WriteBytes(path_, "old");
  std::filesystem::create_symlink("file", link);
  ASSERT_TRUE(WriteFile(link, "new").ok());
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_EQ(ReadBytes(path_), "new");
}

TEST_F(NewFileTest, KeepsPermissions) {
  WriteBytes(path_, "old");
  for (mode_t mode : {0600, 0664}) {
    ASSERT_EQ(chmod(path_.c_str(), mode), 0);
    ASSERT_TRUE(WriteFile(path_, "new").ok());
    struct stat found;
    ASSERT_EQ(stat(path_.c_str(), &found), 0);
    EXPECT_EQ(found.st_mode & 07777, mode);
  }
}

TEST_F(NewFileTest, RefusesWhatItCannotReplace) {
  const std::string link = folder_.File("link");
  std::filesystem::create_symlink("nothing", link);
  for (const auto& [path, message] :
       {std::pair<std::string, std::string>{folder_.path(), "found a folder"},
        {"/dev/null", "found something else"},
        {link, "a symbolic link to none"},
        {folder_.File("absent/file"), "cannot be written"},
        {"", "an empty one"}}) {
    const absl::Status status = WriteFile(path, "new");
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(status.message(), HasSubstr(message));
    EXPECT_THAT(status.message(), HasSubstr(path));
  }
  EXPECT_THAT(Names(), ElementsAre("link"));
}

TEST_F(NewFileTest, RefusesAFileThatMayNotBeWritten) {
  if (geteuid() == 0) GTEST_SKIP() << "root may write all files";
  WriteBytes(path_, "old");
  ASSERT_EQ(chmod(path_.c_str(), 0444), 0);
  EXPECT_THAT(WriteFile(path_, "new").message(), HasSubstr("Permission"));
  EXPECT_EQ(ReadBytes(path_), "old");
}

}  // namespace
}  // namespace sparse_ffn
