#!/usr/bin/env bash
# The whole thing on a bare Debian 12 or Ubuntu 24.04, in one command: installs
# packages, builds, makes a checkpoint of MiniCPM-S-1B's sizes, starts the
# server on the GPU or else the CPU, checks its answers against double
# precision, measures latency and sparsity, and stops the server again.
#
#   deploy/demo.sh [--layers N] [--seconds S] [--backend auto|cpu|cuda] [--keep]
#
#   --layers N   layers of the checkpoint, 1 to 52; 35 MB each; default 8
#   --seconds S  seconds of each load, 0.1 to 3600; default 3
#   --backend B  where to compute; auto is the default
#   --keep       leave the server running and say how to stop it
#
# Logs, the checkpoint and the results stay in build/demo.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=steps.sh
source "$root/deploy/steps.sh"

layers=8
seconds=3
backend=auto
keep=false
while (($# > 0)); do
  case "$1" in
    --layers) layers=${2:-} && shift ;;
    --seconds) seconds=${2:-} && shift ;;
    --backend) backend=${2:-} && shift ;;
    --keep) keep=true ;;
    -h | --help)
      sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
      exit 0
      ;;
    *)
      echo "demo.sh: unknown option '$1'; see --help" >&2
      exit 2
      ;;
  esac
  shift || true # The value that is missing is said below.
done
if [[ ! "$layers" =~ ^[1-9][0-9]?$ ]] || ((layers > 52)); then
  echo "demo.sh: --layers '$layers' is no number from 1 to 52" >&2
  exit 2
fi
if [[ ! "$seconds" =~ ^[0-9]{1,4}(\.[0-9]+)?$ ]] ||
  ! awk -v s="$seconds" 'BEGIN { exit !(s >= 0.1 && s <= 3600) }'; then
  echo "demo.sh: --seconds '$seconds' is no number from 0.1 to 3600" >&2
  exit 2
fi
if [[ ! "$backend" =~ ^(auto|cpu|cuda)$ ]]; then
  echo "demo.sh: --backend '$backend' is none of auto, cpu, cuda" >&2
  exit 2
fi
# Said now, not after the build. DEMO_DEVICES: another folder than /dev, for
# tests.
devices=${DEMO_DEVICES:-/dev}
if [[ "$backend" == cuda && ! -e "$devices/dxg" && ! -e "$devices/nvhost-gpu" ]] &&
  ! compgen -G "$devices/nvidia[0-9]*" >/dev/null; then
  echo "demo.sh: --backend cuda: expected an NVIDIA GPU, such as" \
    "$devices/nvidia0, got none; --backend cpu needs none" >&2
  exit 2
fi

bin=$root/build/release/bin
work=$root/build/demo
model=$work/minicpm-s-1b-$layers-layers
server_log=$work/server.log
mkdir -p "$work"
cd "$root"

fail() {
  echo "demo.sh: $1" >&2
  if [[ -f "${2:-}" ]]; then
    tail -n 20 "$2" | sed 's/^/   | /' >&2
  fi
  exit 1
}

server_pid=
cleanup() {
  local status=$?
  end_step
  if [[ -n "$server_pid" ]]; then
    kill -TERM "$server_pid" 2>/dev/null || true
    wait "$server_pid" 2>/dev/null || true
  fi
  rm -rf "$model.part"
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

start_server() {
  port=$(free_port 50051)
  metrics_port=$(free_port 9090)
  target=127.0.0.1:$port
  echo "-- start the server"
  nohup "$bin/sparse-ffn-server" --model "$model" --backend "$backend" \
    --listen "$target" --metrics "127.0.0.1:$metrics_port" \
    >"$server_log" 2>&1 </dev/null &
  server_pid=$!
  local start=$SECONDS
  until "$bin/sparse-ffn-client" info --target "$target" --connect-timeout 1 \
    >"$work/info.txt" 2>&1; do
    if ! kill -0 "$server_pid" 2>/dev/null; then
      server_pid=
      fail "the server ended while starting" "$server_log"
    fi
    if ((SECONDS - start > 180)); then
      fail "the server did not answer within 180 s" "$server_log"
    fi
    sleep 0.2
  done
  sed 's/^/   /' "$work/info.txt"
  # `why` is the last word of that line.
  sed -n '/msg="backend chosen"/s/.* why=/   why this backend: /p' "$server_log"
}

# The JSON report of the load NAME.
report() { echo "$work/${1//[^a-z0-9]/-}.json"; }

# load NAME OPTIONS...: one load, its report as text beside that as JSON, of
# which it prints a row of the table.
load() {
  local name=$1 json
  shift
  json=$(report "$name")
  "$bin/sparse-ffn-load" --target "$target" --mode stream --warmup 0.5 \
    --duration "$seconds" --json "$json" "$@" >"${json%.json}.txt" 2>&1 \
    </dev/null || fail "load '$name' failed" "${json%.json}.txt"
  printf '%-34s %9.0f %9.0f %10.0f %11.0f %9.2f %%\n' "$name" \
    "$(json_number "$json" p50)" "$(json_number "$json" p99)" \
    "$(json_number "$json" compute_us)" \
    "$(json_number "$json" tokens_per_second)" \
    "$(json_number "$json" activation_sparsity | awk '{ print 100 * $1 }')"
}

# json_number FILE KEY [OBJECT]: the first number named KEY, from OBJECT on, in a
# JSON file of one value a line.
json_number() {
  awk -v key="\"$2\":" -v object="${3:+\"$3\":}" \
    'object == "" || $1 == object { found = 1 }
     found && $1 == key { sub(/,$/, "", $2); print $2; exit }' "$1"
}

echo "-- packages"
deploy/packages.sh build test | sed 's/^/   /'
run_step "configure" "$work/configure.log" cmake --preset release
sed -n 's/^-- \(CUDA backend\)/   \1/p' "$work/configure.log"
run_step "build" "$work/build.log" \
  cmake --build --preset release --target programs --parallel "$(nproc)"

if [[ ! -f "$model/config.json" ]]; then
  rm -rf "$model.part"
  run_step "make a checkpoint of MiniCPM-S-1B's sizes, $layers of 52 layers" \
    "$work/make-model.log" "$bin/sparse-ffn-make-model" \
    --preset minicpm-s-1b --layers "$layers" --out "$model.part"
  mv "$model.part" "$model"
fi
echo "   checkpoint: $model, $(du -sm "$model" | cut -f1) MiB"

start_server

echo "-- check every layer against double precision"
if ! "$bin/sparse-ffn-client" check --target "$target" --model "$model" \
  --tokens 4 >"$work/check.txt" 2>&1 </dev/null; then
  fail "the answers are wrong" "$work/check.txt"
fi
# The heading, one line a layer, and the verdict.
awk 'NR <= 2 || $2 == 4 || /^PASSED/ { print "   " $0 }' "$work/check.txt"

echo "-- load, $seconds s each"
echo
printf '%-34s %9s %9s %10s %11s %11s\n' "" "p50 us" "p99 us" "compute us" \
  "tokens/s" "sparsity"
load "1 client, 1 token, sparse" --execution sparse
load "1 client, 1 token, dense" --execution dense
load "1 client, 1 token, auto" --execution auto
load "4 clients, 1 token, auto" --clients 4
load "1 client, 16 tokens, auto" --tokens 16
decode="1 client, 1 token, decode"
load "$decode" --decode
echo
echo "p50, p99: round trip of one layer; compute: mean from a batch's start to its result;"
printf 'decode: all %s layers of a token, one after the other, take %.0f us (p50)\n' \
  "$layers" "$(json_number "$(report "$decode")" p50 token_latency_us)"

echo
echo "metrics: http://127.0.0.1:$metrics_port/metrics, for example"
http_get 127.0.0.1 "$metrics_port" /metrics >"$work/metrics.txt" ||
  fail "/metrics does not answer" "$server_log"
shown='^sparse_ffn_('
shown+='request_duration_seconds_count\{code="OK",method="StreamForward"|'
shown+='layer_activation_sparsity_ratio\{layer="0"|'
shown+='neurons_(active|evaluated)_total\{layer="0"|'
shown+='batches_total|weight_bytes_|weights_bytes)'
grep -E "$shown" "$work/metrics.txt" | sort | sed 's/^/   /' ||
  fail "/metrics lacks the expected series" "$work/metrics.txt"
echo

if $keep; then
  echo "the server keeps running at $target, process $server_pid;" \
    "stop it with: kill $server_pid"
  server_pid=
  exit 0
fi

echo "-- stop the server"
stopping=$server_pid
server_pid=
kill -TERM "$stopping"
status=0
wait "$stopping" || status=$?
if ((status != 0)); then
  fail "the server ended with $status instead of 0" "$server_log"
fi
echo "   drained, exit code 0"
