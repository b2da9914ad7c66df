#!/usr/bin/env bash
# Who may include whom, as far as a grep can see it.
#
#   include_rules_test.sh check ROOT      the rules over the tree at ROOT
#   include_rules_test.sh self-test ROOT  plants one violation after the other
#                                         in a copy and expects each be caught
set -euo pipefail

# Lines "FILE INCLUDED" with < or " before INCLUDED, files relative to $1.
includes_of() {
  (cd "$1" && grep -rHoE '^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"][^>"]+' \
    --include='*.cc' --include='*.h' --include='*.cu' --include='*.cuh' \
    kernels server client tests |
    sed -E 's/^([^:]+):[^<"]*([<"].*)/\1 \2/')
}

# Reads lines of includes_of, prints "FILE includes INCLUDED: RULE" for each
# breach and returns 1 if there is one. A rule forbids the files of `from` to
# include what matches `what`, apart from what matches `but`; a transitive rule
# follows the project's own headers.
find_breaches() {
  awk '
    function rule(name, from, what, but, transitive) {
      names[++rules] = name; froms[rules] = from; whats[rules] = what
      buts[rules] = but; transitives[rules] = transitive
    }
    function breaks(r, path) {
      return path ~ whats[r] && (buts[r] == "" || path !~ buts[r])
    }
    function report(file, path, r) {
      print file " includes " path ": " names[r]
      breaches++
    }
    function visit(start, file, r,   i, path) {
      if ((start, file, r) in seen) return
      seen[start, file, r] = 1
      for (i = 1; i <= counts[file]; i++) {
        path = included[file, i]
        if (breaks(r, path))
          report(file == start ? file : start " (through " file ")", path, r)
        if (transitives[r] && path in counts) visit(start, path, r)
      }
    }
    BEGIN {
      rpc = "(^grpc|\\.pb\\.h$|^google/protobuf/)"
      library = "^(kernels|server|client|tests)/"
      rule("nothing includes tests", "^(kernels|server|client)/", "^tests/")
      rule("kernels know no other folder, no RPC, no metrics, no JSON, no log",
           "^kernels/",
           rpc "|^(server|client)/|^prometheus/|^nlohmann/|^spdlog/|^CLI/")
      rule("RPC only in service, status conversion and main",
           "^server/", rpc)
      exempt[rules] = "^server/(service/|main)"
      rule("Prometheus only in metrics and main",
           "^(kernels|server|client)/", "^prometheus/")
      exempt[rules] = "^server/(metrics|main)"
      rule("CUDA headers only in kernels/cuda",
           "^(kernels|server|client)/",
           "^(cuda|cublas|cooperative_groups|device_launch|nvtx|nvml|mma\\.h)")
      exempt[rules] = "^kernels/cuda/"
      rule("only kernels/cuda and tests include kernels/cuda",
           "^(kernels|server|client)/", "^kernels/cuda/")
      exempt[rules] = "^kernels/cuda/"
      rule("a .cu includes no abseil and no RPC", "\\.cuh?$", rpc "|^absl/", "",
           1)
      rule("the batcher includes no RPC", "^server/batcher", rpc, "", 1)
      rule("of kernels the server sees matrix.h and ffn_backend.h",
           "^server/", "^kernels/", "^kernels/(matrix|ffn_backend)\\.h$")
      rule("the server includes no client", "^server/", "^client/")
      rule("server/checkpoint knows only itself and kernels/matrix.h",
           "^server/checkpoint/", library,
           "^(server/checkpoint/|kernels/matrix\\.h$)")
      rule("of the server clients see server/checkpoint",
           "^client/", "^server/", "^server/checkpoint/")
      rule("of kernels clients see matrix.h",
           "^client/", "^kernels/", "^kernels/matrix\\.h$")
      rule("no include climbs out of its folder", ".", "\\.\\./")
    }
    {
      quote = substr($2, 1, 1)
      path = substr($2, 2)
      included[$1, ++counts[$1]] = path
      if (quote == "\"" && path !~ "/") {
        print $1 " includes " path ": our own includes start at the root"
        breaches++
      }
    }
    END {
      if (NR == 0) { print "no includes found"; exit 1 }
      for (file in counts)
        for (r = 1; r <= rules; r++)
          if (file ~ froms[r] && !((r in exempt) && file ~ exempt[r]))
            visit(file, file, r)
      exit breaches > 0
    }'
}

check() {
  includes_of "$1" | find_breaches
}

# Each line: file to write in the copy, included path, start of the rule.
planted='
kernels/planted.cc "tests/oracle.h" nothing includes tests
kernels/cpu/planted.cc "server/config.h" kernels know
kernels/cpu/planted.cc <grpcpp/grpcpp.h> kernels know
kernels/planted.h <prometheus/counter.h> kernels know
server/config_planted.cc <grpcpp/server.h> RPC only
server/logging_planted.cc "sparse_ffn/v1/ffn.pb.h" RPC only
server/service/planted.cc <prometheus/counter.h> Prometheus only
client/load/planted.cc <prometheus/counter.h> Prometheus only
kernels/cpu/planted.cc <cuda_runtime_api.h> CUDA headers
server/planted.h <cublas_v2.h> CUDA headers
kernels/planted.cc "kernels/cuda/launch.h" only kernels/cuda
kernels/cuda/planted.cu "launch.h" our own includes
kernels/cuda/planted.cu "absl/status/status.h" a .cu includes
kernels/cuda/planted.cu <absl/status/status.h> a .cu includes
kernels/cuda/planted.cu "kernels/ffn_backend.h" a .cu includes
server/batcher_planted.cc <grpcpp/grpcpp.h> the batcher
server/batcher_planted.cc "client/ffn_client.h" the batcher
server/planted.cc "kernels/cpu/thread_pool.h" of kernels the server
server/planted.cc "client/npy.h" the server includes
server/checkpoint/planted.cc "server/config.h" server/checkpoint knows
server/checkpoint/planted.cc "kernels/ffn_backend.h" server/checkpoint knows
client/cli/planted.cc "server/batcher.h" of the server clients
client/make_model/planted.cc "kernels/ffn_backend.h" of kernels clients
tests/unit/planted.cc "../test_main.cc" no include climbs
'

self_test() {
  local copy missed=0 file included expected number=0 found
  copy=$(mktemp -d)
  # Expanded now: the local is gone when the trap runs.
  # shellcheck disable=SC2064
  trap "rm -rf '$copy'" EXIT
  (cd "$1" && cp -r --parents kernels server client tests "$copy")
  if ! check "$copy" >/dev/null; then
    echo "the copy breaks the rules before anything is planted"
    check "$copy"
    return 1
  fi
  while read -r file included expected; do
    if [[ -z "$file" ]]; then
      continue
    fi
    number=$((number + 1))
    mkdir -p "$copy/$(dirname "$file")"
    printf '  #  include %s  // planted\n' "$included" >"$copy/$file"
    if found=$(check "$copy"); then
      echo "not caught: $file including $included"
      missed=1
    elif ! grep -qF ": $expected" <<<"$found" ||
      ! grep -qF "$file " <<<"$found"; then
      echo "caught for another reason: $file including $included: $found"
      missed=1
    fi
    rm "$copy/$file"
  done <<<"$planted"
  if ((missed == 0 && number > 20)); then
    echo "all $number planted violations were caught"
    return 0
  fi
  return 1
}

case "${1:-}" in
  check) check "${2:?the root of the tree}" && echo "no violation" ;;
  self-test) self_test "${2:?the root of the tree}" ;;
  *)
    echo "usage: include_rules_test.sh check|self-test ROOT" >&2
    exit 2
    ;;
esac
