#!/bin/sh
# The authors' run_mteb: run_mteb.sh MODEL NAME BENCHMARK [more options of `qwen3-eval mteb`]
#
# MODEL is the id under which the service serves the embedding model, NAME what the results are kept under, below
# ./results. The service is at $QWEN3_TARGET, and $QWEN3_EVAL_DTYPE and $QWEN3_EVAL_ENGINE say how it computes.
set -eu
[ $# -ge 3 ] || { echo "usage: $0 MODEL NAME BENCHMARK [OPTION...]" >&2; exit 2; }
model=$1 name=$2 benchmark=$3
shift 3
exec qwen3-eval mteb --model "$model" --name "$name" --benchmark "$benchmark" "$@"
