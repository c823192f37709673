#!/usr/bin/env bash
# The shipped recipes as they are, on random weights of their real shapes: does it fit, how fast.
#   bash bench/gpu_recipes.sh DATA_FOLDER OUT_FOLDER      DATA_FOLDER: bench/gpu_data.py
set -euo pipefail
data=$(realpath "$1") out=$2
python="${PYTHON:-python3}"
export HF_HUB_OFFLINE=1 COLUMNS=120
mkdir -p "$out"
for shape in polyglot-ko-12.8b llama3-8b polyglot-ko-5.8b polyglot-ko-1.3b; do
  "$python" bench/random_base.py "$shape" "/dev/shm/$shape" --tokenizer "$data/tokenizer"
  "$python" -m koalpaca_tune.cli.main train "$shape" base.path="/dev/shm/$shape" out="$out/$shape" \
    data.train="$data/long.jsonl" data.valid=null data.too_long=cut \
    training.max_steps=4 training.log_every=1 training.warmup_steps=0
  cat "$out/$shape/metrics.jsonl"
  rm -r "/dev/shm/$shape"
done
