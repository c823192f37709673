#!/usr/bin/env bash
# A whole run of a shipped recipe on a file of yours: prepare, check, train, judge before and after, card.
#   bash scripts/sft.sh RECIPE BASE FILE [key=value ...]
set -euo pipefail
if [ $# -lt 3 ]; then
  echo "파일이 필요합니다 (a file is needed): bash scripts/sft_polyglot_12.8b.sh my.csv [key=value ...]" >&2
  exit 2
fi
recipe=$1 base=$2 file=$(realpath "$3")
shift 3
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

for setting in "$@"; do
  case "$setting" in out=*|data.train=*|data.valid=*)
    echo "$setting: 이 스크립트가 정합니다. 다른 폴더에 하려면 koalpaca 명령을 직접 쓰세요. (set by this script)" >&2
    exit 2 ;;
  esac
done
run="runs/$recipe"
settings=(data.train="$run-data/train.jsonl" data.valid="$run-data/valid.jsonl" "$@")
# prepared anew each time: the same file gives the same bytes, and a changed one is refused by --resume
koalpaca data prepare "$file" --out "$run-data" --overwrite
if compgen -G "$run/checkpoints/step-*" > /dev/null; then
  koalpaca train "$recipe" "${settings[@]}" --resume
else
  if [ -e "$run" ]; then
    # stopped before its first checkpoint: kept, and begun anew
    mv "$run" "$run-stopped-$(date +%Y%m%d-%H%M%S)"
  fi
  koalpaca train "$recipe" "${settings[@]}" --dry-run
  koalpaca train "$recipe" "${settings[@]}"
fi
bash "$(dirname "${BASH_SOURCE[0]}")/eval_before_after.sh" "$base" "$run/adapter"
