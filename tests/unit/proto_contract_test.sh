#!/usr/bin/env bash
# The wire contract compiles alone, without warnings, and keeps the names and
# numbers that clients written elsewhere rely on.
#
#   proto_contract_test.sh PROTOC ROOT
set -euo pipefail

protoc=$1
root=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
install -D "$root/proto/sparse_ffn/v1/ffn.proto" \
  "$work/alone/sparse_ffn/v1/ffn.proto"
cd "$work/alone"

"$protoc" --fatal_warnings --proto_path=. --descriptor_set_out=ffn.pb \
  sparse_ffn/v1/ffn.proto
for rpc in GetModelInfo Forward StreamForward FfnService; do
  if ! grep -aq "$rpc" ffn.pb; then
    echo "the service lost $rpc"
    exit 1
  fi
done

# expect MESSAGE HEX TEXT: TEXT in protobuf's text format must encode to HEX.
expect() {
  local got
  got=$("$protoc" --proto_path=. --encode="sparse_ffn.v1.$1" \
    sparse_ffn/v1/ffn.proto <<<"$3" | od -An -v -tx1 | tr -d ' \n')
  if [[ "$got" != "$2" ]]; then
    echo "$1: '$3' encodes to $got instead of $2"
    exit 1
  fi
}
expect ForwardRequest 080710021803200328017a03616263 \
  'request_id: 7 layer: 2 tokens: 3 dtype: DATA_TYPE_BFLOAT16
   execution: EXECUTION_SPARSE hidden_states: "abc"'
expect ForwardRequest 20012802 \
  'dtype: DATA_TYPE_FLOAT32 execution: EXECUTION_DENSE'
expect ForwardRequest 2002 \
  'dtype: DATA_TYPE_FLOAT16 execution: EXECUTION_AUTO'
expect ForwardReply 080710031a016d2001280232007a0161 \
  'request_id: 7 status_code: 3 status_message: "m" tokens: 1
   dtype: DATA_TYPE_FLOAT16 stats: {} hidden_states: "a"'
expect ForwardStats 0a0205061007180220082a016430013802400348045005 \
  'active_neurons: 5 active_neurons: 6 union_active_neurons: 7 batch_tokens: 2
   intermediate_size: 8 path: "d" queue_ns: 1 gate_ns: 2 up_ns: 3 down_ns: 4
   compute_ns: 5'
expect GetModelInfoReply \
  0a016d12020001180420052803320161 \
  'model_name: "m" layers: 0 layers: 1 hidden_size: 4 intermediate_size: 5
   weights_dtype: DATA_TYPE_BFLOAT16 activation: "a"'
expect GetModelInfoReply \
  3d0000003f4201624a016450105a0168620176 \
  'threshold: 0.5 backend: "b" device_name: "d" max_batch_tokens: 16
   weights_hash: "h" server_version: "v"'
echo "the contract compiles alone and keeps its names and numbers"
