#!/usr/bin/env bash
# What sharing across heads and layers does to a model's predictions and answers, paired with dense, on the bundled model: sa,
# drop, chai as it is calibrated and at other ratios, and what was trained: the adapter of lisa and the model of lckv. Two hours
# on one core; `runs/sharing.sh FOLDER 4 2` is a try of minutes. Prints markdown for docs/log.md.
#
#   runs/sharing.sh [folder for calibrations and untrained files, 0.1 GB] [windows of 512 tokens] [texts with facts]
#
# The layers are those that adapter and model were trained for: LISA_LAYERS and LCKV_LAYERS, if they were others;
# the files can be named by LISA_ADAPTER and LCKV_MODEL.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:-$(mktemp -d)}
windows=${2:-78} # 40,000 tokens
texts=${3:-25}
lisa_layers=${LISA_LAYERS:-3-5}
lckv_layers=${LCKV_LAYERS:-0_1_4x4}
mkdir -p "$folder"
base=models/kvasir-demo/kvasir-demo-f16.gguf
text=models/text/train.txt.gz
adapter=${LISA_ADAPTER:-models/kvasir-demo-lisa.gguf}
condensed=${LCKV_MODEL:-models/kvasir-demo-lckv.gguf}

quality() { npx tsx scripts/quality.ts -n "$windows" "$@"; }
decode() { npx tsx scripts/quality.ts -n 6 --decode "$@"; }
recall() {
  local options=()
  for setting in "$@"; do options+=(--attention "$setting"); done
  npx tsx scripts/recall.ts 512,1024 "$texts" "${options[@]}"
}
title() { printf '\n#### %s\n' "$1"; }

# Clusters of the first layers count most: a calibration puts them there, the same number for all layers does not.
chai=()
calibrate() {
  local out="$folder/$1.chai.json"
  [ -f "$out" ] || npx kvasir calibrate chai -f "$text" -o "$out" "${@:2}" >&2
  chai+=("chai:file=$out")
}
calibrate elbows
for ratio in 0.875 0.75 0.65 0.5625 0.5 0.375; do calibrate "$ratio" --ratio "$ratio"; done

echo "### Sharing across heads and layers"
echo
echo "$(date -u +%F), $(nproc) × $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -1), $(git describe --always --dirty 2>/dev/null || echo 'no repository')"

title 'sa and drop'
quality sa:layers={1,2,3,4,5,4-5,2/5,2/4/5,2/3/5,3-5,2-4,2-5} drop:layers={0,1,2,3,4,5,4-5,2/5,2/4/5,2/3/5,3-5,2-4}
recall sa:layers={2,3,4,5,2/5,2/4/5,3-5,2-4} drop:layers={2,3,4,5,2/5,2/3/5}

# K and V together are at 78.6 % of dense, the published 21.4 % saved, where clusters are 0.57 of the heads.
title 'chai'
for file in "$folder"/*.chai.json; do
  node -p "const [path] = process.argv.slice(1); '- ' + path.split('/').at(-1) + ': ' + JSON.parse(require('fs').readFileSync(path)).clusters.join('/')" "$file"
done
echo
quality "${chai[@]}" chai:ratio={0.875,0.75,0.625,0.5,0.375}
quality "chai:file=$folder/0.5625.chai.json,"{causal=true,causal=false,clustering=kmeans}
decode "${chai[@]}"
recall "${chai[@]}" chai:ratio={0.75,0.5}

if [ -f "$adapter" ]; then
  title "lisa over layers $lisa_layers"
  start="$folder/lisa-untrained.gguf"
  [ -f "$start" ] || npx kvasir train lisa --layers "$lisa_layers" --steps 0 -o "$start" >&2
  quality "sa:layers=$lisa_layers" "lisa:adapter=$start" "lisa:adapter=$adapter"
  decode "lisa:adapter=$adapter"
  recall "sa:layers=$lisa_layers" "lisa:adapter=$adapter"
fi

if [ -f "$condensed" ]; then
  title "lckv, $lckv_layers"
  start="$folder/lckv-untrained.gguf"
  [ -f "$start" ] || npx kvasir train lckv --layers "$lckv_layers" --steps 0 -f "$text" -o "$start" >&2
  for model in "$start" "$condensed"; do
    echo
    echo "$(basename "$model")"
    quality -m "$model" --base "$base" lckv lckv:iterations={1,2,3,5,20}
  done
  decode -m "$condensed" --base "$base" lckv
  npx tsx scripts/recall.ts 512,1024 "$texts" -m "$condensed" --base "$base" --attention lckv:iterations=2
fi
