#!/usr/bin/env bash
# A real run: polyglot-ko-12.8B, QLoRA r 8 on query_key_value, on one CUDA card of 24 GB.
#   bash scripts/sft_polyglot_12.8b.sh my.csv [key=value ...]
set -euo pipefail
if [ $# -lt 1 ]; then
  echo "파일이 필요합니다 (a file is needed): bash scripts/sft_polyglot_12.8b.sh my.csv [key=value ...]" >&2
  exit 2
fi
exec bash "$(dirname "${BASH_SOURCE[0]}")/sft.sh" polyglot-ko-12.8b EleutherAI/polyglot-ko-12.8b "$@"
