#!/usr/bin/env bash
# The main job, offline, on the embedded base and the shipped samples: about 2 minutes on 2 CPU cores, after installation.
#   bash scripts/demo.sh [key=value ...]
#   EVAL_OPTIONS="--limit 20" bash scripts/demo.sh    options of koalpaca eval
set -euo pipefail
for setting in "$@"; do
  case "$setting" in out=* | data.train=* | data.valid=*)
    echo "$setting: 이 스크립트가 정합니다. 다른 폴더에 하려면 koalpaca 명령을 직접 쓰세요. (set by this script)" >&2
    exit 2 ;;
  esac
done
read -ra options <<< "${EVAL_OPTIONS:-}"
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
export HF_HUB_OFFLINE=1

run=runs/demo
if [ -e "$run" ] || [ -e runs/demo-data ] || [ -e runs/demo-judged ]; then
  kept="runs/earlier-$(date +%Y%m%d-%H%M%S)"
  mkdir -p "$kept"
  for folder in "$run" runs/demo-data runs/demo-judged; do [ ! -e "$folder" ] || mv "$folder" "$kept/"; done
  echo "앞서 돌린 데모는 $kept 에 있습니다. (the earlier demo was moved there)"
fi
started=$SECONDS
step() { printf '\n\033[1m[%s] %s\033[0m\n' "$1" "$2"; }

step 1/6 "데이터 준비 (prepare)"
koalpaca data prepare --samples --out runs/demo-data
step 2/6 "기반 모델 평가 (judge the base)"
koalpaca eval embedded --4bit --suite ko-mini --heldout runs/demo-data/valid.jsonl --out runs/demo-judged "${options[@]}"
step 3/6 "QLoRA 학습 (train)"
koalpaca train demo "$@"
step 4/6 "어댑터 평가 (judge the adapter)"
koalpaca eval embedded --adapter $run/adapter --suite ko-mini --out runs/demo-judged "${options[@]}"
step 5/6 "짝지은 비교 (compare)"
koalpaca compare runs/demo-judged/base runs/demo-judged/adapter --out $run/comparison
step 6/6 "모델 카드 (model card)"
koalpaca hub card $run/adapter --comparison $run/comparison

printf '\n\033[1m%s\033[0m\n' "데모를 마쳤습니다: $((SECONDS - started))초 (done, in seconds)"
echo "보고서 (report): $run/comparison/report.html"
echo "모델 카드 (model card): $run/adapter/README.md"
