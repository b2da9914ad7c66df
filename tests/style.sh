#!/usr/bin/env bash
# Checks the form of the sources; prints every finding and fails on any.
#
#   tests/style.sh format            C++, CUDA and proto against .clang-format
#   tests/style.sh shell             shell scripts with shellcheck
#   tests/style.sh tidy BUILD_DIR    C++ with clang-tidy, as compiled in the
#                                    configured and built tree BUILD_DIR
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
folders=(proto kernels server client tests)

case "${1:-}" in
  format)
    find "${folders[@]}" -type f \( -name '*.cc' -o -name '*.h' -o \
      -name '*.cu' -o -name '*.cuh' -o -name '*.proto' \) -print0 |
      xargs -0 -r clang-format --dry-run -Werror
    ;;
  shell)
    {
      find deploy tests -type f -name '*.sh' -print0
      printf '.ci/run\0'
    } | xargs -0 -r shellcheck --external-sources --source-path=SCRIPTDIR
    ;;
  tidy)
    build_dir=${2:?tidy needs the build folder}
    if [[ ! -f "$build_dir/compile_commands.json" ]]; then
      echo "style.sh: no compile_commands.json in $build_dir" >&2
      exit 1
    fi
    # Generated files and the CUDA compiler's are left out.
    sed -nE 's/^ *"file": "(.*\.cc)",?$/\1/p' \
      "$build_dir/compile_commands.json" | sort -u |
      grep -F "$root/" | grep -vF "$root/build/" |
      xargs -r -P "$(nproc)" -n 2 clang-tidy --quiet -p "$build_dir"
    ;;
  *)
    echo "usage: style.sh format | shell | tidy BUILD_DIR" >&2
    exit 2
    ;;
esac
