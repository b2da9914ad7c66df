#!/usr/bin/env bash
# deploy/demo.sh refuses options that it has no use for, before it installs or
# builds anything, and says what it got.
#
#   demo_options_test.sh ROOT
#
# ROOT is the folder with deploy/.
set -euo pipefail

root=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/deploy"
cp "$root/deploy/demo.sh" "$root/deploy/steps.sh" "$work/deploy"
printf '#!/bin/sh\necho installing\nexit 1\n' >"$work/deploy/packages.sh"
chmod +x "$work/deploy/packages.sh"

refused() { # text options...
  local text=$1 status=0
  shift
  "$work/deploy/demo.sh" "$@" >"$work/output" 2>&1 </dev/null || status=$?
  if ((status != 2)) || ! grep -qF -- "$text" "$work/output"; then
    echo "demo_options_test: demo.sh $*: exit status $status, output:"
    sed 's/^/   | /' "$work/output"
    exit 1
  fi
}

accepted() { # options...
  local status=0
  "$work/deploy/demo.sh" "$@" >"$work/output" 2>&1 </dev/null || status=$?
  if ((status != 1)) || ! grep -qF installing "$work/output"; then
    echo "demo_options_test: demo.sh $*: exit status $status, output:"
    sed 's/^/   | /' "$work/output"
    exit 1
  fi
}

export DEMO_DEVICES=$work/devices
mkdir "$DEMO_DEVICES"
refused "--backend cuda: expected an NVIDIA GPU, such as $DEMO_DEVICES/nvidia0, got none" --backend cuda
touch "$DEMO_DEVICES/nvidia0"
accepted --backend cuda
rm "$DEMO_DEVICES/nvidia0"
accepted --seconds 0.1
accepted --seconds 3600 --layers 52 --backend cpu
refused "--seconds '3600.1' is no number from 0.1 to 3600" --seconds 3600.1
refused "--layers '53' is no number from 1 to 52" --layers 53
refused "--layers '08' is no number from 1 to 52" --layers 08
refused "--layers '0' is no number from 1 to 52" --layers 0
refused "--layers '' is no number from 1 to 52" --layers
refused "--seconds '' is no number from 0.1 to 3600" --layers 3 --seconds
refused "--seconds 'soon' is no number from 0.1 to 3600" --seconds soon
refused "--seconds '0.0' is no number from 0.1 to 3600" --seconds 0.0
refused "--seconds '10000000' is no number from 0.1 to 3600" --seconds 10000000
refused "--seconds '0.001' is no number from 0.1 to 3600" --seconds 0.001
refused "--backend 'gpu' is none of auto, cpu, cuda" --backend gpu
refused "unknown option '--fast'" --fast
