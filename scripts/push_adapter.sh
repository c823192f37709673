#!/usr/bin/env bash
# Shows what would be sent to the Hub; with --yes and a token (HF_TOKEN or `hf auth login`) sends it.
#   bash scripts/push_adapter.sh ADAPTER USER/NAME [--yes]
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "어댑터와 저장소 이름이 필요합니다 (adapter and repository are needed): bash scripts/push_adapter.sh runs/NAME/adapter me/name [--yes]" >&2
  exit 2
fi
adapter=$1 repo=$2
shift 2
if [ ! -d "$adapter" ]; then
  echo "$adapter: 어댑터의 폴더가 없습니다. (no such folder of an adapter)" >&2
  exit 2
fi
# paths are the caller's
from=$PWD
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$from"
koalpaca hub push "$adapter" --repo "$repo" "$@"
