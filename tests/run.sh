#!/usr/bin/env bash
# Installs what is missing, builds, and runs all tests. Works from any folder.
#
#   tests/run.sh [--preset NAME] [--docker] [--no-install]
#
#   --preset NAME  release, with CUDA where a toolkit is found (the default),
#                  debug, cpu, asan or tsan: see CMakePresets.json
#   --docker       also build the image and run it in a container (root, minutes)
#   --no-install   leave the system's packages alone
#
# The last lines say how many tests passed, failed and were skipped, and why;
# the exit status is 0 only where none failed.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=../deploy/steps.sh
source "$root/deploy/steps.sh"
trap end_step EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

preset=release
install=true
tasks=(build bundle test)
ctest_arguments=(-LE docker)
while (($# > 0)); do
  case "$1" in
    --preset)
      preset=${2:?--preset needs a name}
      shift
      ;;
    --docker)
      ctest_arguments=()
      command -v dockerd >/dev/null || tasks+=(docker)
      ;;
    --no-install) install=false ;;
    -h | --help)
      sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
      exit 0
      ;;
    *)
      echo "run.sh: unknown option '$1'; see --help" >&2
      exit 2
      ;;
  esac
  shift
done

cd "$root"
build_dir=$root/build/$preset
jobs=$(nproc)
configure=(cmake --preset "$preset")
case "$preset" in
  asan | tsan)
    tasks+=(sanitize)
    # In a folder that was configured for another compiler CMake would drop what
    # the preset says, the sanitizers too.
    configure+=(--fresh)
    ;;
esac

if $install; then
  deploy/packages.sh "${tasks[@]}"
fi
run_step "configure, preset $preset" "$build_dir/configure.log" \
  "${configure[@]}"
grep -h '^-- CUDA backend' "$build_dir/configure.log" | sed 's/^-- /   /' || true
run_step "build" "$build_dir/build.log" \
  cmake --build --preset "$preset" --parallel "$jobs"

# One more test at a time than processors: several mostly wait.
test_log=$build_dir/test.log
status=0
run_step "test" "$test_log" \
  ctest --preset "$preset" --no-tests=error --parallel "$((jobs + 1))" \
  ${ctest_arguments[@]+"${ctest_arguments[@]}"} || status=$?

# Lines of ctest such as " 3/10 Test  #3: name ....***Skipped   0.01 sec".
count() {
  grep -cE "^ *[0-9]+/[0-9]+ Test +#[0-9]+: .*$1" "$test_log" || true
}
passed=$(count ' Passed ')
skipped=$(count '\*\*\*Skipped')
total=$(count '')
failed=$((total - passed - skipped))

# What failed tests printed last, from ctest's own record.
record=$build_dir/Testing/Temporary/LastTest.log
awk '
  $2 == "Testing:" { name = $3; lines = 0 }
  { line[lines++ % 60] = $0 }
  /^Test Failed/ {
    printf "\nFailed: %s\n", name
    for (i = lines > 60 ? lines - 60 : 0; i < lines; ++i) print "   | " line[i % 60]
  }
' "$record"

# Why tests were skipped, from there too: the line after GoogleTest's
# "file:line: Skipped", or a script's line "skipped: ...". One reason a program,
# those of programs that passed with some of their cases skipped included.
skip_reasons=$(awk '
  $2 == "Testing:" { name = $3; reason = ""; take_next = 0 }
  take_next && NF { reason = $0; take_next = 0 }
  /: Skipped$/ && reason == "" { take_next = 1 }
  /^skipped: / && reason == "" { reason = substr($0, 10) }
  /^<end of output>/ && reason != "" { print "  " name ": " reason }
' "$record")
if [[ -n "$skip_reasons" ]]; then
  printf '\nSkipped, in whole or in part:\n%s\n' "$skip_reasons"
fi

echo
echo "preset $preset: $total tests: $passed passed, $failed failed," \
  "$skipped skipped (log: $test_log)"
if ((status != 0 || failed != 0 || passed == 0)); then
  echo "FAILED"
  exit 1
fi
echo "OK"
