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

run="runs/$recipe"
settings=(data.train="$run-data/train.jsonl" data.valid="$run-data/valid.jsonl" "$@")
[ -e "$run-data" ] || koalpaca data prepare "$file" --out "$run-data"
if [ -e "$run/run.yaml" ]; then
  koalpaca train "$recipe" "${settings[@]}" --resume
else
  koalpaca train "$recipe" "${settings[@]}" --dry-run
  koalpaca train "$recipe" "${settings[@]}"
fi
bash "$(dirname "${BASH_SOURCE[0]}")/eval_before_after.sh" "$base" "$run/adapter"
