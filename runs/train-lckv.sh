#!/usr/bin/env bash
# An LCKV model of the bundled one: layers 2 to 5 read the keys and values of layer 4, so half of the layers keep any. Layers 0 and 1
# stay as they are: without keys of its own in layer 1 the model finds no facts again. About half an hour on one core.
#
#   runs/train-lckv.sh [folder for the text and the unfinished models, 150 MB]
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:-$(mktemp -d)}
mkdir -p "$folder"
base=models/kvasir-demo/kvasir-demo-f16.gguf
npx tsx scripts/facts-text.ts models/text/train.txt.gz 3500000 800 > "$folder/facts.txt"

# Three passes over the condensed layers (1 + 2) are enough: more of them give the same loss to 0.001.
learn=(train lckv -f "$folder/facts.txt" --parse-special --distil 1 -c 1024 --windows 1 --measure-every 40 -t 1)
npx kvasir "${learn[@]}" -m $base --layers 0_1_4x4 --start copy --forward-passes 1 --backward-passes 2 \
  -o "$folder/first.gguf" --steps 120 --lr 2e-4 --lr-min 5e-5 --warmup 10
npx kvasir "${learn[@]}" -m "$folder/first.gguf" --teacher $base \
  -o "$folder/second.gguf" --steps 120 --lr 1e-4 --lr-min 1e-5 --warmup 5 --seed 1
cp "$folder/second.gguf" models/kvasir-demo-lckv.gguf
