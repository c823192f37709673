#!/usr/bin/env bash
# Base and adapter on the same items, compared in pairs; the report and the model card, beside the adapter.
#   bash scripts/eval_before_after.sh BASE ADAPTER [options of koalpaca eval]
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "기반 모델과 어댑터가 필요합니다 (base and adapter are needed): bash scripts/eval_before_after.sh BASE ADAPTER" >&2
  exit 2
fi
base=$1 adapter=$2
shift 2
if [ ! -d "$adapter" ]; then
  echo "$adapter: 어댑터의 폴더가 없습니다. (no such folder of an adapter)" >&2
  exit 2
fi
# paths are the caller's
from=$PWD
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$from"
run="$(dirname "$adapter")"
koalpaca eval "$base" --adapter "$adapter" --out "$run/judged" "$@"
koalpaca compare "$run/judged/base" "$run/judged/adapter" --out "$run/comparison"
koalpaca hub card "$adapter" --comparison "$run/comparison"
