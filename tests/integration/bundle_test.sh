#!/usr/bin/env bash
# The tarball runs where nothing but glibc is installed: unpacked in a root
# folder that holds the glibc family alone, the programs make a checkpoint,
# serve it and check the answers there. Without the right to chroot and mount:
# on this host, after a look that every library comes out of the bundle.
#
#   bundle_test.sh TARBALL STEPS
#
# TARBALL is what the target `bundle` made, STEPS is deploy/steps.sh.
set -euo pipefail

tarball=$1
# shellcheck source=../../deploy/steps.sh
source "$2"

jail=$(mktemp -d)
server_pid=
cleanup() {
  if [[ -n "$server_pid" ]]; then
    kill -KILL "$server_pid" 2>/dev/null || true
  fi
  umount "$jail/proc" 2>/dev/null || true
  rm -rf --one-file-system "$jail"
}
trap cleanup EXIT

fail() {
  echo "bundle_test: $1"
  if [[ -s "$jail/server.log" ]]; then
    tail -n 20 "$jail/server.log"
  fi
  exit 1
}

mkdir "$jail/bundle" "$jail/data"
tar -xzf "$tarball" -C "$jail/bundle" --strip-components=1
for program in sparse-ffn-server sparse-ffn-client sparse-ffn-load \
  sparse-ffn-make-model; do
  if [[ ! -x "$jail/bundle/bin/$program" ]]; then
    fail "the tarball lacks bin/$program"
  fi
done

# What stays the host's: copied into the jail, and nothing else.
host_libraries='^(libc|libm|libmvec|libpthread|libdl|librt|libresolv|ld-linux.*)\.so\.'
for file in "$jail"/bundle/bin/* "$jail"/bundle/lib/*; do
  while read -r path; do
    if [[ "$path" == "$jail/bundle/"* ]]; then
      continue
    fi
    if [[ ! "$(basename "$path")" =~ $host_libraries ]]; then
      fail "$(basename "$file") takes $path from the host"
    fi
    install -D "$path" "$jail$path"
  done < <(ldd "$file" | grep -oE '/[^ ]+')
done

# The dynamic linker finds $ORIGIN through /proc.
mkdir "$jail/proc"
alone=false
if ((EUID == 0)) && mount -t proc proc "$jail/proc" 2>/dev/null; then
  alone=true
fi

# in_jail PROGRAM ARGUMENTS...: with an empty environment. The process is the
# program itself, so that a signal to it arrives.
if $alone; then
  folder=
  in_jail() {
    local program=$1
    shift
    exec env -i "$(command -v chroot)" "$jail" "/bundle/bin/$program" "$@"
  }
else
  folder=$jail
  in_jail() {
    local program=$1
    shift
    exec env -i "$jail/bundle/bin/$program" "$@"
  }
fi

(in_jail sparse-ffn-server --version)
(in_jail sparse-ffn-make-model --preset tiny --out "$folder/data/tiny" \
  >/dev/null 2>&1)

port=$(free_port 52051)
metrics_port=$(free_port 9190)
in_jail sparse-ffn-server --model "$folder/data/tiny" --backend cpu \
  --listen "127.0.0.1:$port" --metrics "127.0.0.1:$metrics_port" \
  >"$jail/server.log" 2>&1 &
server_pid=$!
for attempt in {1..100}; do
  if (in_jail sparse-ffn-client info --target "127.0.0.1:$port" \
    --connect-timeout 1 >/dev/null 2>&1); then
    break
  fi
  if ((attempt == 100)) || ! kill -0 "$server_pid"; then
    fail "the server did not start"
  fi
  sleep 0.1
done
(in_jail sparse-ffn-client check --target "127.0.0.1:$port" \
  --model "$folder/data/tiny") || fail "check failed"
http_get 127.0.0.1 "$metrics_port" /metrics >"$jail/metrics.txt"
grep -q '^sparse_ffn_neurons_active_total' "$jail/metrics.txt" ||
  fail "/metrics lacks the active neurons"

kill -TERM "$server_pid"
status=0
wait "$server_pid" || status=$?
server_pid=
if ((status != 0)); then
  fail "the server ended with $status after SIGTERM"
fi
if $alone; then
  echo "served and checked in a root folder with glibc alone"
else
  echo "served and checked from the bundle; no right to mount"
fi
