#!/usr/bin/env bash
# 30 QLoRA steps of a published shape (random weights) on one CUDA card, with `koalpaca train` itself:
# whole 2,048-token documents, then short Korean records packed into 2,048-token rows.
#   bash bench/gpu_train.sh SHAPE DATA_FOLDER OUT_FOLDER
# DATA_FOLDER holds long.jsonl and short.jsonl (bench/gpu_data.py) and tokenizer/. Logs go to OUT_FOLDER.
set -euo pipefail
shape=$1 data=$(realpath "$2") out=$3
python="${PYTHON:-python3}"
export HF_HUB_OFFLINE=1 COLUMNS=120
base=/dev/shm/$shape
mkdir -p "$out"
[ -e "$base/config.json" ] || "$python" bench/random_base.py "$shape" "$base" --tokenizer "$data/tokenizer"
for kind in ${KINDS:-long short}; do
  run=/tmp/gpu-train-$shape-$kind
  name=$shape-$kind${LABEL:+-$LABEL}
  rm -rf "$run"
  echo "== $shape, $kind: 8 rows of 2,048 tokens a step, 30 steps"
  "$python" -m koalpaca_tune.cli.main train "$shape" base.path="$base" out="$run" \
    data.train="$data/$kind.jsonl" data.valid=null data.max_length=2048 data.too_long=cut \
    training.batch_size=8 training.max_steps=30 training.log_every=5 \
    training.warmup_steps=0 ${OVERRIDES:-} 2>&1 | tee "$out/$name.log"
  cp "$run/metrics.jsonl" "$out/$name.metrics.jsonl"
  cp "$run/record.json" "$out/$name.record.json"
done
