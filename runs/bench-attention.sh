#!/usr/bin/env bash
# Methods of attention beside llama.cpp: four layers of the Llama 3.2 1B shape in q4_0. An hour and a half on two cores, for
# llama.cpp reads 32,768 tokens in minutes. Prints markdown for docs/log.md. Nothing else may run.
#
#   runs/bench-attention.sh [folder for the model file, 0.2 GB]
set -euo pipefail
cd "$(dirname "$0")/.."

source runs/four-layers.sh "${1:-}"

hip=hip:dense_layers=0
wide=$hip,preset=contiguous
sparq=sparq:r=16,k=256
streaming=streaming:window=2044
h2o=h2o:budget=2048

echo "### Methods beside llama.cpp"
echo
echo "$(date -u +%F), $(nproc) × $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -1), $(git describe --always --dirty 2>/dev/null || echo 'no repository')"
bench() {
  echo
  npx kvasir bench -m "$model" "$@"
}
bench -p 512 -n 64 -d 0,512 -r 5 --attention "dense,$streaming,$h2o,$hip,$sparq"
bench -p 512 -n 64 -d 16384 -r 3 --attention "dense,$hip,$sparq" --versus llama.cpp
bench -p 0 -n 64 -d 32768 -r 1 --no-warmup --attention "dense,$hip,$sparq,$streaming,$h2o" --versus llama.cpp -fa off
bench -p 16384 -n 0 -r 1 --no-warmup --attention "$hip,$wide" --versus llama.cpp -fa on
bench -p 32768 -n 0 -r 1 --no-warmup --attention "$wide" --versus llama.cpp -fa on
bench -p 65536 -n 0 -r 1 --no-warmup --attention "$hip,$wide"
bench -p 0 -n 64 -d 131072 -r 1 --attention "$wide"
