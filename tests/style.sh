#!/usr/bin/env bash
# Checks the form of the sources; prints every finding and fails on any.
#
#   tests/style.sh format  C++, CUDA and proto against .clang-format
#   tests/style.sh shell   shell scripts with shellcheck
#   tests/style.sh tidy    C++ with clang-tidy, in build/tidy
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
    # Most of the time goes into the headers of libraries, so the sources of a
    # target are read as one file. Generated code is left out, and the CUDA
    # compiler's.
    cmake --preset tidy >/dev/null
    cmake --build --preset tidy >/dev/null
    sources=$(sed -nE 's/^ *"file": "(.*\.(cc|cxx))",?$/\1/p' \
      build/tidy/compile_commands.json | sort -u |
      grep -vF /sparse_ffn_proto.dir/)
    tidy() {
      xargs -r -P "$(nproc)" -n 1 clang-tidy --quiet -p build/tidy "$@"
    }
    status=0
    grep -v '/tests/' <<<"$sources" | tidy || status=1
    grep '/tests/' <<<"$sources" | tidy --config-file=tests/.clang-tidy ||
      status=1
    exit "$status"
    ;;
  *)
    echo "usage: style.sh format | shell | tidy" >&2
    exit 2
    ;;
esac
