#!/usr/bin/env bash
# Memory of long contexts (scripts/memory.ts): streaming and h2o on the bundled model, hip on four layers of the Llama 3.2 1B
# shape. Minutes. Prints markdown for docs/log.md.
#
#   runs/memory.sh [folder for the model file, 0.2 GB]
set -euo pipefail
cd "$(dirname "$0")/.."

source runs/four-layers.sh "${1:-}"

echo "### Memory"
npx tsx scripts/memory.ts models/kvasir-demo/kvasir-demo-f16.gguf streaming,h2o
npx tsx scripts/memory.ts "$model" h2o,hip
