#!/usr/bin/env bash
# Checks the form of the sources; prints every finding and fails on any.
#
#   tests/style.sh format  C++, CUDA and proto against .clang-format
#   tests/style.sh shell   shell scripts with shellcheck
#   tests/style.sh tidy    C++ with clang-tidy, in build/release and build/tidy
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
    for preset in release tidy; do
      log=$(cmake --preset "$preset" 2>&1 &&
        cmake --build --preset "$preset" --target sparse_ffn_proto) || {
        echo "$log"
        exit 1
      }
    done
    sources() {
      sed -nE 's/^ *"file": "(.*\.(cc|cxx))",?$/\1/p' \
        "build/$1/compile_commands.json" | sort -u
    }
    tidy() {
      xargs -d '\n' -r -P "$(nproc)" -n 1 clang-tidy --quiet "$@"
    }
    status=0
    # The analyzer does not look into a source that another one includes.
    sources release | grep -F -e "$root/kernels/" -e "$root/server/" |
      grep -vF "$root/server/service/" | tidy -p build/release || status=1
    # Elsewhere most of the time goes into the headers of libraries: the sources
    # of a target are read as one, which misc-unused-using-decls and
    # misc-unused-alias-decls do not look into either.
    sources tidy | grep -F -e /tidy/client/ -e /sparse_ffn_service.dir/ |
      tidy -p build/tidy --config-file=client/.clang-tidy || status=1
    sources tidy | grep -F "$root/build/tidy/tests/" |
      tidy -p build/tidy --config-file=tests/.clang-tidy || status=1
    exit "$status"
    ;;
  *)
    echo "usage: style.sh format | shell | tidy" >&2
    exit 2
    ;;
esac
