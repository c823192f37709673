#!/usr/bin/env bash
# Serves a base with adapters, or a merged model, by vLLM: writes what vLLM needs with `koalpaca export vllm`, once,
# and runs the serve.sh that it wrote. On http://127.0.0.1:8000, and the next ports where several are served.
#   bash scripts/serve_vllm.sh BASE ADAPTER ...
#   bash scripts/serve_vllm.sh MERGED
#   OUT=folder bash scripts/serve_vllm.sh ...    where it is written; else "served" beside the first adapter or model
set -euo pipefail
if [ $# -lt 1 ]; then
  echo "모델이 필요합니다 (a model is needed): bash scripts/serve_vllm.sh BASE [ADAPTER ...]" >&2
  exit 2
fi
for adapter in "${@:2}"; do
  if [ ! -d "$adapter" ]; then
    echo "$adapter: 어댑터의 폴더가 없습니다. (no such folder of an adapter)" >&2
    exit 2
  fi
done
# before anything is written: a merged 12.8B takes time and space
if ! command -v vllm > /dev/null; then
  echo "vllm이 설치되어 있지 않습니다. torch의 판이 다르니 따로 둡니다: python3 -m venv ~/vllm && ~/vllm/bin/pip install vllm, 그리고 PATH=\$PATH:~/vllm/bin (vllm is not installed; give it an environment of its own, on PATH)" >&2
  exit 2
fi
# paths are the caller's
from=$PWD
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$from"

beside="${2:-$1}"
if [ ! -d "$beside" ]; then
  # a name of the Hub
  beside="./$(basename "$beside")"
fi
out="${OUT:-$(dirname "$beside")/served}"
# what it was written from: an adapter trained anew is another one
made="$(for one in "$@"; do echo "$one"; stat -c '%n %s %Y' "$one"/*.safetensors 2> /dev/null || true; done)"
if [ ! -e "$out" ]; then
  koalpaca export vllm "$@" --out "$out"
  echo "$made" > "$out/.made-from"
elif [ "$(cat "$out/.made-from" 2> /dev/null)" != "$made" ]; then
  echo "$out: 다른 모델이나 어댑터로 썼거나 쓰다 만 것입니다. 지우거나 OUT=새폴더를 주세요. (written from others, or not finished: remove it, or give OUT=folder)" >&2
  exit 2
fi

# a group of its own: several servers stop together, with Ctrl-C too
set -m
sh "$out/serve.sh" &
group=$!
stopped=""
stop() {
  [ -n "$stopped" ] || kill -TERM -- "-$group" 2> /dev/null || true
  stopped=1
}
trap stop INT TERM
# a signal ends the first wait; the second one is for the answers under way
wait "$group" || true
stop
wait "$group"
