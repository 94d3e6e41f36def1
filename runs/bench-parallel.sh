#!/usr/bin/env bash
# Sequences side by side, beside llama.cpp (columns of llama-batched-bench), on the shape of Llama 3.2 1B in q4_0.
#
#   runs/bench-parallel.sh [folder for the model file, 0.7 GB]
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:-$(mktemp -d)}
mkdir -p "$folder"
model="$folder/llama-3.2-1b-q4_0.gguf"
[ -f "$model" ] || npx kvasir synth --like llama-3.2-1b --type q4_0 -o "$model" >&2
npx kvasir bench -m "$model" -p 128 -n 32 -npl 1,4,16 -r 3 --versus llama.cpp
