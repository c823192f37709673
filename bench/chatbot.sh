#!/usr/bin/env bash
# The whole way on a real file: songys/Chatbot_data through the embedded base, on the CPU.
#   bash bench/chatbot.sh ChatbotData.csv RUN_FOLDER
# Prints counts per stage, the loss, the comparison's table and verdict; everything else is in RUN_FOLDER.
set -euo pipefail
file=$(realpath "$1") run=$2
export HF_HUB_OFFLINE=1
started=$SECONDS
koalpaca data prepare "$file" --licence MIT --out "$run/data"
koalpaca train demo name=chatbot out="$run/train" data.train="$run/data/train.jsonl" \
  data.valid="$run/data/valid.jsonl" training.epochs=2 training.learning_rate=0.001 training.batch_size=8 training.log_every=20 \
  training.eval_every=60 hub.data_licenses="[mit]"
koalpaca eval embedded --adapter "$run/train/adapter" --suite ko-mini --out "$run/judged"
koalpaca compare "$run/judged/base" "$run/judged/adapter" --out "$run/comparison"
koalpaca hub card "$run/train/adapter" --comparison "$run/comparison"
echo "$((SECONDS - started)) s"
