#!/usr/bin/env bash
# How well logits agree with libllama: the bundled model in every type, and each synth shape whole. About an hour on two cores,
# and files of up to 4 GB in the folder for temporary files. Prints markdown for docs/log.md.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "### Agreement with libllama"
echo
echo "$(date -u +%F), $(nproc) × $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -1)"
echo
npx tsx scripts/agreement.ts full
