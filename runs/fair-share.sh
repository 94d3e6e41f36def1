#!/usr/bin/env bash
# Runs beside other programs (scripts/fair-share.ts): the bundled model, and four layers of the Llama 3.2 1B shape. Minutes, and
# as many more until the machine is quiet. Prints markdown for docs/log.md.
#
#   runs/fair-share.sh [folder for the model file, 0.2 GB]
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:-$(mktemp -d)}
mkdir -p "$folder"
model="$folder/llama-3.2-1b-4-layers-q4_0.gguf"
[ -f "$model" ] || npx kvasir synth --like llama-3.2-1b --layers 4 --vocab 4096 --type q4_0 -o "$model" >&2

echo "### Beside other programs"
for file in models/kvasir-demo/kvasir-demo-f16.gguf "$model"; do
  echo
  npx tsx scripts/fair-share.ts "$file"
done
