#!/usr/bin/env bash
# Builds the image and runs it: non-root, healthy, answering from outside the
# container, /metrics from outside, SIGTERM ends it with 0. Needs no registry:
# debootstrap makes the base image, and where no Docker daemon answers, one is
# started with folders of its own and stopped at the end.
#
#   docker_test.sh ROOT BIN_DIR
#
# BIN_DIR holds sparse-ffn-make-model and sparse-ffn-client. Exits 77, with the
# reason, where this cannot be done.
set -euo pipefail

root=$1
bin=$2
# shellcheck source=../../deploy/steps.sh
source "$root/deploy/steps.sh"

skip() {
  echo "skipped: $1"
  exit 77
}
for tool in docker debootstrap; do
  command -v "$tool" >/dev/null || skip "no $tool here"
done
if ((EUID != 0)); then
  skip "debootstrap and dockerd need root"
fi

work=$(mktemp -d)
daemon_pid=
container=
base_image=sparse-ffn-base:$$
image=sparse-ffn-server:test-$$
cleanup() {
  end_step
  if [[ -n "$container" ]]; then
    docker rm -f "$container" >/dev/null 2>&1 || true
  fi
  if [[ -n "$daemon_pid" ]]; then
    kill -TERM "$daemon_pid" 2>/dev/null || true
    wait "$daemon_pid" 2>/dev/null || true
    if $own_bridge; then
      ip link delete docker0 2>/dev/null || true
    fi
  else
    docker rmi -f "$image" "$base_image" >/dev/null 2>&1 || true
  fi
  # The daemon leaves a network namespace mounted below its folder.
  umount "$work/exec/netns/default" 2>/dev/null || true
  rm -rf --one-file-system "$work" || true
}
own_bridge=false
trap cleanup EXIT

fail() {
  echo "docker_test: $1"
  if [[ -n "$container" ]]; then
    docker logs --tail 20 "$container" 2>&1 || true
  fi
  exit 1
}

# No rules in the host's packet filter: ports are published by docker-proxy.
start_daemon() {
  command -v dockerd >/dev/null || skip "no Docker daemon runs, and no dockerd"
  if [[ -e /sys/class/net/docker0 ]]; then
    skip "no Docker daemon answers, though another one's bridge docker0 is here"
  fi
  own_bridge=true
  export DOCKER_HOST=unix://$work/docker.sock
  dockerd --host "$DOCKER_HOST" --data-root "$work/data" \
    --exec-root "$work/exec" --pidfile "$work/docker.pid" \
    --iptables=false --ip6tables=false >"$work/dockerd.log" 2>&1 &
  daemon_pid=$!
  for _ in {1..150}; do
    if docker info >/dev/null 2>&1; then
      return
    fi
    if ! kill -0 "$daemon_pid" 2>/dev/null; then
      break
    fi
    sleep 0.2
  done
  skip "dockerd does not start here: $(grep -E 'level=(error|fatal)|failed' \
    "$work/dockerd.log" | tail -n 1)"
}

# A Debian of this host's release, from this host's mirror, with this host's
# settings for reaching it.
make_base_image() {
  local codename mirror
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")
  mirror=$(apt-get indextargets --format "\$(SITE)|\$(RELEASE)" \
    "Component: main" | sed -n "s/|$codename\$//p" | head -n 1)
  run_step "debootstrap $codename" "$work/debootstrap.log" \
    debootstrap --variant=minbase "$codename" "$work/base" \
    "${mirror:-http://deb.debian.org/debian}" ||
    skip "debootstrap failed: $(tail -n 1 "$work/debootstrap.log")"
  apt-config dump | grep -E '^Acquire::(http|https)::Proxy|^Acquire::Check-' \
    >"$work/base/etc/apt/apt.conf.d/90host" || true
  tar -C "$work/base" -c . | docker import - "$base_image" >/dev/null
  rm -rf --one-file-system "$work/base"
}

inspect() {
  docker inspect --format "$1" "$container"
}

# until_health WANTED SECONDS
until_health() {
  local start=$SECONDS health
  while true; do
    health=$(inspect '{{.State.Status}} {{.State.Health.Status}}')
    case "$health" in
      "running $1") return ;;
      running*) ;;
      *) fail "the container is '$health' instead of running" ;;
    esac
    if ((SECONDS - start > $2)); then
      fail "health is '$health' after $2 s instead of $1"
    fi
    sleep 0.5
  done
}

docker info >/dev/null 2>&1 || start_daemon
echo "docker $(docker version --format '{{.Server.Version}}')"
make_base_image
DOCKER_BUILDKIT=0 run_step "docker build" "$work/build.log" \
  docker build --network host --build-arg BASE_IMAGE="$base_image" \
  --file "$root/deploy/Dockerfile" --tag "$image" "$root" ||
  fail "docker build failed"
echo "image: $(($(docker image inspect --format '{{.Size}}' "$image") / 1048576)) MiB"

"$bin/sparse-ffn-make-model" --preset tiny --out "$work/tiny" \
  >/dev/null 2>&1
chmod -R a+rX "$work/tiny" && chmod a+x "$work"
container=$(docker run --detach --read-only --cap-drop ALL \
  --security-opt no-new-privileges --volume "$work/tiny:/model:ro" \
  --publish 127.0.0.1::50051 --publish 127.0.0.1::9090 "$image")

until_health healthy 120
echo "healthy"

user=$(docker exec "$container" id -u)
if [[ "$user" == 0 ]]; then
  fail "the container runs as root"
fi
echo "runs as user $user"

target=$(docker port "$container" 50051/tcp | head -n 1)
"$bin/sparse-ffn-client" check --target "$target" --model "$work/tiny" ||
  fail "the check from outside failed"

metrics=$(docker port "$container" 9090/tcp | head -n 1)
http_get "${metrics%:*}" "${metrics##*:}" /metrics >"$work/metrics.txt"
requests=$(awk '/^sparse_ffn_request_duration_seconds_count/ { n += $2 }
  END { print n + 0 }' "$work/metrics.txt")
if ((requests == 0)); then
  cat "$work/metrics.txt"
  fail "/metrics counts no request"
fi
echo "/metrics read from outside: $requests requests"

docker stop -t 30 "$container" >/dev/null
code=$(inspect '{{.State.ExitCode}}')
if [[ "$code" != 0 ]]; then
  fail "SIGTERM ended the server with $code"
fi
echo "SIGTERM: drained, exit code 0"

docker rm "$container" >/dev/null
container=
if docker run --rm "$image" >"$work/no-model.log" 2>&1; then
  fail "the server started without a model"
fi
echo "without a model: $(tail -n 1 "$work/no-model.log")"
echo "passed"
