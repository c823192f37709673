#!/usr/bin/env bash
# A whole run of a recipe on a file of yours: prepare, check, train, judge before and after, card.
# Called again with the same words after it was stopped, it goes on.
#   bash scripts/sft.sh RECIPE BASE FILE [key=value ...]
#   GPUS=2 bash scripts/sft.sh ...                        several cards of one machine
#   EVAL_OPTIONS="--suite ko-knowledge" bash scripts/...  options of koalpaca eval
set -euo pipefail
if [ $# -lt 3 ]; then
  echo "레시피, 기반 모델, 파일이 필요합니다 (recipe, base and file are needed): bash scripts/sft.sh RECIPE BASE my.csv [key=value ...]" >&2
  exit 2
fi
if [ ! -e "$3" ]; then
  echo "$3: 파일이 없습니다. (no such file)" >&2
  exit 2
fi
recipe=$1 base=$2 file=$(realpath "$3")
shift 3
name="$(basename "$recipe" .yaml)"
[ ! -f "$recipe" ] || recipe="$(realpath "$recipe")"
[ ! -d "$base" ] || base="$(realpath "$base")"
for setting in "$@"; do
  case "$setting" in out=* | data.train=* | data.valid=*)
    echo "$setting: 이 스크립트가 정합니다. 다른 폴더에 하려면 koalpaca 명령을 직접 쓰세요. (set by this script)" >&2
    exit 2 ;;
  esac
done
gpus="${GPUS:-1}"
if ! [[ "$gpus" =~ ^[1-9][0-9]*$ ]]; then
  echo "GPUS=$gpus: 1 이상의 정수여야 합니다. (a whole number of at least 1)" >&2
  exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

train=(koalpaca train)
if [ "$gpus" -gt 1 ]; then
  # port 0: a free one, as two runs may share a machine
  train=(accelerate launch --multi_gpu --num_processes "$gpus" --main_process_port 0 -m koalpaca_tune.cli.main train)
fi
# bash waits for the command under way, which hears the same signal and writes a checkpoint; torchrun's own status
# would not tell
trap 'exit 143' TERM

run="runs/$name"
settings=(out="$run" data.train="$run-data/train.jsonl" data.valid="$run-data/valid.jsonl" "$@")
# prepared anew each time: the same file gives the same bytes, and a changed one is refused by --resume
koalpaca data prepare "$file" --out "$run-data" --overwrite
if compgen -G "$run/checkpoints/step-*" > /dev/null; then
  "${train[@]}" "$recipe" "${settings[@]}" --resume
else
  if [ -e "$run" ]; then
    # stopped before its first checkpoint: kept, and begun anew
    mv "$run" "$run-stopped-$(date +%Y%m%d-%H%M%S)"
  fi
  "${train[@]}" "$recipe" "${settings[@]}" --dry-run
  "${train[@]}" "$recipe" "${settings[@]}"
fi
read -ra options <<< "${EVAL_OPTIONS:-}"
bash scripts/eval_before_after.sh "$base" "$run/adapter" "${options[@]}"
