#!/usr/bin/env bash
# How well logits and greedy texts agree with libllama on real models: runs/agreement-real.sh MODEL.gguf… Minutes for a small
# one. Prints markdown for docs/log.md.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "### Agreement with libllama on real models"
echo
echo "$(date -u +%F), $(nproc) × $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -1)"
echo
npx tsx scripts/agreement-real.ts "$@"
