#!/usr/bin/env bash
# The LiSA adapter of the bundled model: layers 3 to 5 of 6 take the scores of the layer before. Half an hour to an hour on one core.
set -euo pipefail
cd "$(dirname "$0")/.."

npx kvasir train lisa --layers 3-5 -f models/text/train.txt.gz -o models/kvasir-demo-lisa.gguf \
  -c 512 --windows 2 --first-steps 300 --steps 500 --lr 3e-3 --warmup 20 --measure-every 50 -t 1
