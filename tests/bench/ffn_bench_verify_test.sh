#!/usr/bin/env bash
# The fused kernels against the three steps, and rows of overlapping launches
# against each launch alone. Skipped, and says so, without a GPU.
#
#   ffn_bench_verify_test.sh FFN_BENCH
set -euo pipefail

status=0
output=$("$1" --presets prosparse-7b,minicpm-s-1b --layers 4 --tokens 1,2 \
  --sparsities 0.893 --paths fused --verify 240 2>&1) || status=$?
printf '%s\n' "$output"
if ((status != 0)) && [[ $output == *UNAVAILABLE:* ]]; then
  echo "skipped: no usable GPU"
  exit 77
fi
((status == 0))
# Of two models.
(($(grep -c 'fused as in steps.*in a row as alone' <<<"$output") == 2))
