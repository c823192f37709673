#!/usr/bin/env bash
# The tests that need a CUDA card (tests/engine/test_cuda.py), with what each of them found. At most 90 s on an H200.
#   bash bench/gpu_tests.sh [LOG] [pytest arguments]
# LOG (default bench/results/gpu-tests-DATE.log) begins with date, machine and versions. Without an installed package:
#   export PYTHONPATH=$PWD:$PWD/carry/site    (bench/gpu_site.sh)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
log=${1:-bench/results/gpu-tests-$(date -u +%F).log}
shift || true
python="${PYTHON:-python3}"
mkdir -p "$(dirname "$log")"
# compiled kernels, where the tests of the CPU would interpret them
export TRITON_INTERPRET=0 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
{
  date -u +"%Y-%m-%d %H:%M UTC"
  git rev-parse --short HEAD 2>/dev/null || true
  nvidia-smi --query-gpu=name,memory.total,driver_version,power.limit --format=csv,noheader
  "$python" - <<'PY'
import importlib.metadata as metadata, platform
print("python", platform.python_version(), platform.machine())
print(", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "triton", "transformers", "peft", "bitsandbytes", "accelerate")))
PY
  "$python" -m pytest -s -p no:cacheprovider --durations=10 tests/engine/test_cuda.py "$@"
} 2>&1 | tee "$log"
