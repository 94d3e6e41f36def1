#!/usr/bin/env bash
# Speed beside llama.cpp on the shape of Llama 3.2 1B, weights in q8_0 and q4_0: reading 512 tokens and generating 128, into an
# empty cache and behind 4,096 tokens, medians of 5, the two engines taking turns. Prints markdown for docs/log.md.
#
#   runs/bench-llama-3.2-1b.sh [folder for the two model files, 2 GB]
#
# Nothing else may run: ggml's threads wait for each other by spinning, so one busy processor of two costs ten times its share.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:-$(mktemp -d)}
mkdir -p "$folder"

echo "### Llama 3.2 1B shape beside llama.cpp"
echo
echo "$(date -u +%F), $(nproc) × $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -1), $(git describe --always --dirty 2>/dev/null || echo 'no repository')"
for type in q8_0 q4_0; do
  model="$folder/llama-3.2-1b-$type.gguf"
  [ -f "$model" ] || npx kvasir synth --like llama-3.2-1b --type "$type" -o "$model" >&2
  echo
  npx kvasir bench -m "$model" -p 512 -n 128 -d 0,4096 -r 5 --versus llama.cpp
done
