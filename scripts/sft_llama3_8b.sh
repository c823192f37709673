#!/usr/bin/env bash
# A real run: Llama-3-8B, QLoRA r 8 on q/k/v, on one CUDA card of 24 GB.
# The weights are gated: ask Meta for access on the Hub, then `hf auth login`.
#   bash scripts/sft_llama3_8b.sh my.csv [key=value ...]
set -euo pipefail
if [ $# -lt 1 ]; then
  echo "파일이 필요합니다 (a file is needed): bash scripts/sft_llama3_8b.sh my.csv [key=value ...]" >&2
  exit 2
fi
exec bash "$(dirname "${BASH_SOURCE[0]}")/sft.sh" llama3-8b meta-llama/Meta-Llama-3-8B "$@"
