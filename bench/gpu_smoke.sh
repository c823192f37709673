#!/usr/bin/env bash
# What the CPU tests cannot see: the embedded base on a CUDA card, trained, resumed, judged, merged, asked.
#   bash bench/gpu_smoke.sh PREPARED_FOLDER RUN_FOLDER
# PREPARED_FOLDER is `koalpaca data prepare --samples --out PREPARED_FOLDER`.
set -euo pipefail
data=$1 run=$2
python="${PYTHON:-python3}"
export HF_HUB_OFFLINE=1 COLUMNS=120
koalpaca() { "$python" -m koalpaca_tune.cli.main "$@"; }
settings=(data.train="$data/train.jsonl" data.valid=null out="$run/train" lora.dropout=0.05
  training.max_steps=40 training.log_every=1 training.checkpoint_every=20)
koalpaca train demo "${settings[@]}"
cp "$run/train/metrics.jsonl" "$run/whole.jsonl"
rm -r "$run/train/checkpoints/step-0000040" "$run/train/adapter"
koalpaca train demo "${settings[@]}" --resume
"$python" - "$run/whole.jsonl" "$run/train/metrics.jsonl" <<'PY'
import json, sys
whole, resumed = ([json.loads(line)["loss"] for line in open(name)] for name in sys.argv[1:])
apart = [abs(a - b) for a, b in zip(whole, resumed, strict=True)]
print(f"resumed at step 20 of 40: largest loss difference {max(apart):.3g} nats, equal {sum(d == 0 for d in apart)} of 40")
PY
koalpaca eval embedded --adapter "$run/train/adapter" --suite ko-mini --out "$run/judged"
koalpaca merge embedded "$run/train/adapter" --out "$run/merged"
koalpaca generate embedded "비 오는 날에는 뭘 하면 좋을까?" --adapter "$run/train/adapter" --max-new-tokens 40
koalpaca doctor
