#!/bin/sh
# The authors' run_mteb_reranking: run_mteb_reranking.sh MODEL NAME RETRIEVAL_PATH BENCHMARK [more options of
# `qwen3-eval rerank`]
#
# MODEL is the id under which the service serves the reranker, NAME what the results are kept under, below ./results,
# RETRIEVAL_PATH the results folder of run_mteb.sh, or the folder of one run's predictions. The best 100 documents of
# each query are reranked. The service is at $QWEN3_TARGET, and $QWEN3_EVAL_DTYPE and $QWEN3_EVAL_ENGINE say how it
# computes.
set -eu
[ $# -ge 4 ] || { echo "usage: $0 MODEL NAME RETRIEVAL_PATH BENCHMARK [OPTION...]" >&2; exit 2; }
model=$1 name=$2 retrieval=$3 benchmark=$4
shift 4
exec qwen3-eval rerank --model "$model" --name "$name" --from "$retrieval" --top-k 100 --benchmark "$benchmark" "$@"
