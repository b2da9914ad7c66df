#!/usr/bin/env bash
# run_step of deploy/steps.sh, as its callers use it: under errexit and pipefail
# a step is not ended by a progress line that has nothing to show, its progress
# is shown where there is some, and its status and the end of its log come back.
#
#   steps_test.sh STEPS
#
# STEPS is deploy/steps.sh.
set -euo pipefail

steps=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
  echo "steps_test: $1"
  sed 's/^/   | /' "$work/output"
  exit 1
}

# step COMMAND: runs it as a step in a shell of its own and prints the status.
step() {
  local status=0
  STEP_PROGRESS_SECONDS=1 bash -c 'set -euo pipefail
    source "$1"
    run_step "a step" "$2" bash -c "$3"
    echo "goes on"' step "$steps" "$work/log" "$1" \
    >"$work/output" 2>&1 || status=$?
  echo "$status"
}

# expect PATTERN...: each is a whole line of the output.
expect() {
  local pattern
  for pattern in "$@"; do
    grep -qxE -e "$pattern" "$work/output" || fail "no line '$pattern' in:"
  done
}

[[ $(step 'sleep 2.5') == 0 ]] || fail "a quiet step ended the script:"
expect '-- a step' '   working, [0-9]+ s' '   done in [0-9]+ s' 'goes on'

[[ $(step 'echo "[7/9] compiling"; sleep 2.5') == 0 ]] ||
  fail "a step with progress ended the script:"
expect '   \[7/9\], [0-9]+ s' 'goes on'

[[ $(step 'echo "the reason"; exit 3') == 3 ]] ||
  fail "a failed step did not end the script with its status:"
expect '   FAILED with status 3 after .*' '   \| the reason'
if grep -q 'goes on' "$work/output"; then
  fail "the script went on after a failed step:"
fi
echo "passed"
