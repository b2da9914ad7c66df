# Sourced by the scripts that build and test: one line a step, the output in a
# log, the end of the log when a step fails.
# shellcheck shell=bash

step_pid= # Of the step that runs, if one does: also its process group.

# run_step LABEL LOG COMMAND...: runs COMMAND with its output in LOG. Prints
# LABEL at the start, every STEP_PROGRESS_SECONDS (30) how far ninja or ctest
# have come, and at the end how long it took. Returns COMMAND's status. The
# EXIT trap of the script that calls it has to call end_step.
run_step() {
  local label=$1 log=$2 start=$SECONDS status=0 shown=$SECONDS progress
  shift 2
  mkdir -p "$(dirname "$log")"
  printf -- '-- %s\n' "$label"
  set -m # In a process group of its own.
  "$@" >"$log" 2>&1 </dev/null &
  step_pid=$!
  set +m
  while kill -0 "$step_pid" 2>/dev/null; do
    sleep 0.2
    if ((SECONDS - shown >= ${STEP_PROGRESS_SECONDS:-30})); then
      shown=$SECONDS
      progress=$(tail -c 4000 "$log" | tr '\r' '\n' |
        grep -oE '^ *(\[[0-9]+/[0-9]+\]|[0-9]+/[0-9]+ Test)' | tail -n 1 || true)
      printf '   %s, %d s\n' "${progress:-working}" $((SECONDS - start))
    fi
  done
  wait "$step_pid" || status=$?
  step_pid=
  if ((status == 0)); then
    printf '   done in %d s\n' $((SECONDS - start))
  else
    printf '   FAILED with status %d after %d s; the end of %s:\n' \
      "$status" $((SECONDS - start)) "$log"
    tail -n 40 "$log" | sed 's/^/   | /'
  fi
  return "$status"
}

# end_step: ends the step that runs, with all that it started, such as the
# compilers of ninja of cmake.
end_step() {
  [[ -n "$step_pid" ]] || return 0
  kill -TERM -- "-$step_pid" 2>/dev/null || true
  wait "$step_pid" 2>/dev/null || true
  step_pid=
}

# http_get HOST PORT PATH: prints the body of the answer to a GET.
http_get() {
  local line
  exec 3<>"/dev/tcp/$1/$2" || return 1
  printf 'GET %s HTTP/1.0\r\nHost: %s\r\nConnection: close\r\n\r\n' \
    "$3" "$1" >&3
  while IFS= read -r line <&3 && [[ "$line" != $'\r' ]]; do :; done
  cat <&3
  exec 3>&-
}

# free_port FIRST: the first TCP port from FIRST on that nobody on the loopback
# interface answers at.
free_port() {
  local port=$1
  while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    port=$((port + 1))
  done
  echo "$port"
}
