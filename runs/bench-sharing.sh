#!/usr/bin/env bash
# Sharing across heads and layers beside llama.cpp and dense: CHAI and LiSA on some layers of the Llama 7B shape, LCKV on
# TinyLlama's. q4_0. Half an hour on two cores. Prints markdown for docs/log.md. Nothing else may run.
#
#   runs/bench-sharing.sh [folder for the model files, 1.8 GB]
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:-$(mktemp -d)}
mkdir -p "$folder"
synth() {
  local file="$folder/$1-q4_0.gguf"
  [ -f "$file" ] || npx kvasir synth --vocab 4096 --type q4_0 -o "$file" "${@:2}" >&2
}
synth llama-7b-2-layers --like llama-7b --layers 2
synth llama-7b-4-layers --like llama-7b --layers 4
synth tinyllama-1.1b --like tinyllama-1.1b
synth tinyllama-1.1b-lckv --like tinyllama-1.1b --layer-types 0_20x20_21
adapter="$folder/llama-7b-4-layers-lisa.gguf"
[ -f "$adapter" ] || npx kvasir train lisa -m "$folder/llama-7b-4-layers-q4_0.gguf" --layers 2-3 --steps 0 -o "$adapter" >&2

echo "### Sharing beside llama.cpp"
echo
echo "$(date -u +%F), $(nproc) × $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -1), $(git describe --always --dirty 2>/dev/null || echo 'no repository')"
bench() {
  echo
  npx kvasir bench "$@"
}
# The published saving, 21.4 % of keys and values, is a mean of 0.572 clusters per head.
chai=chai:ratio=0.572
bench -m "$folder/llama-7b-2-layers-q4_0.gguf" -p 2048 -n 64 -d 0,2048 -r 3 --attention "dense,$chai" --versus llama.cpp
bench -m "$folder/llama-7b-2-layers-q4_0.gguf" -p 0 -n 64 -d 16384 -r 1 --attention "dense,$chai" --versus llama.cpp -fa on
bench -m "$folder/llama-7b-4-layers-q4_0.gguf" -p 0 -n 64 -d 8192 -r 1 --attention "dense,lisa:adapter=$adapter" --versus llama.cpp -fa on
# As many sequences of 512 tokens as fit into 128 MiB of cache, with 22 layers of keys and values, and with 3.
bench -m "$folder/tinyllama-1.1b-q4_0.gguf" -p 16 -n 496 -npl 1,7 -r 1 --versus llama.cpp
bench -m "$folder/tinyllama-1.1b-lckv-q4_0.gguf" -p 16 -n 496 -npl 1,7,55 -r 1
