#!/usr/bin/env bash
# A script that runs steps, ended by a signal in the middle of one, leaves
# nothing of it running: here a "cmake" that only waits, in a copy of the tree.
#
#   interrupted_step_test.sh ROOT
#
# ROOT is the folder with deploy/ and tests/.
set -euo pipefail

root=$1
work=$(mktemp -d)
pids=()
cleanup() {
  ((${#pids[@]} == 0)) || kill -KILL "${pids[@]}" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT

mkdir "$work/deploy" "$work/tests" "$work/bin"
cp "$root/deploy/demo.sh" "$root/deploy/steps.sh" "$work/deploy"
cp "$root/tests/run.sh" "$work/tests"
printf '#!/bin/sh\n' >"$work/deploy/packages.sh"
# Configures at once; builds for ever, in two processes as cmake and ninja do.
cat >"$work/bin/cmake" <<'END'
#!/usr/bin/env bash
[[ "$1" == --build ]] || exit 0
sleep 1000 &
echo "$$ $!" >"$PIDS.part"
mv "$PIDS.part" "$PIDS"
wait
END
chmod +x "$work/deploy/packages.sh" "$work/bin/cmake"

for script in deploy/demo.sh tests/run.sh; do
  for signal in TERM INT; do
    export PIDS=$work/pids
    rm -f "$PIDS"
    set -m # Else the script would ignore SIGINT.
    PATH=$work/bin:$PATH "$work/$script" >"$work/output" 2>&1 </dev/null &
    script_pid=$!
    set +m
    until [[ -f "$PIDS" ]]; do
      if ! kill -0 "$script_pid" 2>/dev/null; then
        echo "interrupted_step_test: $script ended before it built:"
        sed 's/^/   | /' "$work/output"
        exit 1
      fi
      sleep 0.1
    done
    read -r -a pids <"$PIDS"
    kill "-$signal" "$script_pid"
    status=0
    wait "$script_pid" || status=$?
    if ((status == 0)); then
      echo "interrupted_step_test: $script ended with 0 on SIG$signal"
      exit 1
    fi
    # What was told to end may take a moment.
    for ((i = 0; i < 100; ++i)); do
      kill -0 "${pids[@]}" 2>/dev/null || break
      sleep 0.1
    done
    for pid in "${pids[@]}"; do
      if kill -0 "$pid" 2>/dev/null; then
        echo "interrupted_step_test: SIG$signal ended $script," \
          "but left running: $(tr '\0' ' ' <"/proc/$pid/cmdline")"
        exit 1
      fi
    done
    pids=()
  done
done
echo "passed"
