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
    log=$(cmake --preset tidy 2>&1 &&
      cmake --build --preset tidy --target sparse_ffn_proto) || {
      echo "$log"
      exit 1
    }
    mapfile -t sources < <(sed -nE '/sparse_ffn_proto/d
      s/^ *"file": "(.*\.(cc|cxx))",?$/\1/p' build/tidy/compile_commands.json)
    # Most of the time goes into the headers of libraries: sources of a target
    # are read as one, all of a test's and up to 8 elsewhere. They are copied
    # into the file that would include them, since the analyzer and some checks
    # do not look into a source that another one includes. What several sources
    # include stays once, what one source includes twice stays for
    # readability-duplicate-include to find.
    for source in "${sources[@]}"; do
      [[ $source == "$root"/build/tidy/* ]] || continue
      mapfile -t parts < <(sed -nE 's/^#include "(\/.*)"$/\1/p' "$source")
      if ((${#parts[@]} > 0)); then
        awk '
          FNR == 1 { print "// " FILENAME }
          /^#include/ && !here[FILENAME, $0]++ && anywhere[$0]++ { next }
          { print }
        ' "${parts[@]}" >"$source.joined"
        mv "$source.joined" "$source"
      fi
    done
    # tidy CONFIG PATTERN: the sources whose names match.
    tidy() {
      printf '%s\n' "${sources[@]}" | grep -E "$2" |
        xargs -d '\n' -r -P "$(nproc)" -n 1 \
          clang-tidy --quiet -p build/tidy --config-file="$1"
    }
    status=0
    tidy .clang-tidy '/tidy/(kernels|server)/|/kernels/cpu/' || status=1
    tidy client/.clang-tidy '/tidy/client/' || status=1
    tidy tests/.clang-tidy '/tidy/tests/' || status=1
    exit "$status"
    ;;
  *)
    echo "usage: style.sh format | shell | tidy" >&2
    exit 2
    ;;
esac
