# Sourced by scripts beside it: sets `model` to four layers of the Llama 3.2 1B shape in q4_0, of random weights, which are made
# in the folder "$1" (a temporary one if it is empty) unless they lie there.
folder=${1:-$(mktemp -d)}
mkdir -p "$folder"
model="$folder/llama-3.2-1b-4-layers-q4_0.gguf"
[ -f "$model" ] || npx kvasir synth --like llama-3.2-1b --layers 4 --vocab 4096 --type q4_0 -o "$model" >&2
