#!/usr/bin/env bash
# Runs beside other programs (scripts/fair-share.ts): the bundled model, and four layers of the Llama 3.2 1B shape. Minutes, and
# as many more until the machine is quiet. Prints markdown for docs/log.md.
#
#   runs/fair-share.sh [folder for the model file, 0.2 GB]
set -euo pipefail
cd "$(dirname "$0")/.."

source runs/four-layers.sh "${1:-}"

echo "### Beside other programs"
for file in models/kvasir-demo/kvasir-demo-f16.gguf "$model"; do
  echo
  npx tsx scripts/fair-share.ts "$file"
done
