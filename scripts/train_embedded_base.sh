#!/usr/bin/env bash
# Make the embedded base anew, from Korean Wikipedia to the measured model.
# About 15 minutes on one H200: 3 for the tokenizer, 13 for the training. Needs torch with CUDA, transformers,
# tokenizers, safetensors and pyarrow; no network.
#
#   scripts/train_embedded_base.sh [data folder] [work folder] [model folder]
set -euo pipefail
cd "$(dirname "$0")/.."

data=${1:-../shared/data}
work=${2:-runs/embedded}
model=${3:-koalpaca_tune/embedded}
if [ ! -d "$data" ]; then
  echo "$data: 데이터의 폴더가 없습니다. (no such folder of data)" >&2
  exit 2
fi
step() { python3 scripts/embedded_base.py "$1" --data "$data" --work "$work" "${@:2}"; }

step tokenizer
step encode
step train --device cuda
step export --model "$model"
step measure --model "$model" --device cuda --batch 64 --characters 0 --record
