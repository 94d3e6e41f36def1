#!/usr/bin/env bash
# What each method of attention does to answers: facts hidden in text, paired with dense, on the bundled model. About an hour on
# one core. Prints markdown for docs/log.md.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "### Recall of hidden facts"
npx tsx scripts/recall.ts 1024 25
npx tsx scripts/recall.ts 2048 12
