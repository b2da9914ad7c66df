#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that a task needs, and only those that
# are missing. Names of tasks may be combined; "build" is the default.
#
#   deploy/packages.sh [--list] [build] [bundle] [test] [sanitize] [check]
#                               [docker]
#
#   build     compiler, CMake and the libraries of the server and its clients
#   bundle    what the self-contained tarball needs on top
#   test      what the tests need on top
#   sanitize  what the presets asan and tsan need on top: clang, its sanitizers
#             and what names the functions in their reports
#   check     formatter, linters
#   docker    what the test of the image needs: a Docker daemon, debootstrap
#   --list    print the names and install nothing
set -euo pipefail

build_packages=(
  cmake
  g++
  libabsl-dev
  libcli11-dev
  libgrpc++-dev
  libhwy-dev
  libprotobuf-dev
  libspdlog-dev
  libxxhash-dev
  ninja-build
  nlohmann-json3-dev
  pkg-config
  prometheus-cpp-dev
  protobuf-compiler
  protobuf-compiler-grpc
)
bundle_packages=(patchelf)
test_packages=(libgmock-dev libgtest-dev python3)
sanitize_packages=(clang libclang-rt-dev llvm)
check_packages=(clang-format clang-tidy shellcheck)
docker_packages=(debootstrap docker.io iproute2)

list_only=false
packages=()
add() {
  case "$1" in
    build) packages+=("${build_packages[@]}") ;;
    bundle) packages+=("${bundle_packages[@]}") ;;
    test) packages+=("${test_packages[@]}") ;;
    sanitize) packages+=("${sanitize_packages[@]}") ;;
    check) packages+=("${check_packages[@]}") ;;
    docker) packages+=("${docker_packages[@]}") ;;
    *)
      echo "packages.sh: unknown task '$1'; expected build, bundle, test," \
        "sanitize, check or docker" >&2
      exit 2
      ;;
  esac
}
for argument in "$@"; do
  case "$argument" in
    --list) list_only=true ;;
    -h | --help)
      sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
      exit 0
      ;;
    *) add "$argument" ;;
  esac
done
if ((${#packages[@]} == 0)); then
  add build
fi

if $list_only; then
  printf '%s\n' "${packages[@]}"
  exit 0
fi

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "packages: this is no Debian or Ubuntu; expecting the equivalents of:" \
    "${packages[*]}"
  exit 0
fi

missing=()
for package in "${packages[@]}"; do
  state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  if [[ "$state" != installed ]]; then
    missing+=("$package")
  fi
done
if ((${#missing[@]} == 0)); then
  echo "packages: all ${#packages[@]} are installed"
  exit 0
fi

as_root=()
if ((EUID != 0)); then
  if ! command -v sudo >/dev/null; then
    echo "packages: need root or sudo to install: ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt_get() {
  if ! ${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 "$@" \
    >"$log" 2>&1 </dev/null; then
    echo "packages: apt-get $* failed:" >&2
    tail -n 20 "$log" >&2
    return 1
  fi
}
echo "packages: installing ${missing[*]}"
apt_get update
apt_get install -y --no-install-recommends "${missing[@]}"
echo "packages: ${#missing[@]} installed"
