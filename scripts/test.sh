#!/usr/bin/env bash
# Lint, types, import contracts, tests: what CI runs. At most 8 minutes on 2 cores after installation.
#   bash scripts/test.sh [pytest arguments]
set -euo pipefail
extras=dev
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

started=$SECONDS
ruff check .
ruff format --check --quiet .
mypy
lint-imports
# one thread for each of two workers: torch's own threads would fight over the two cores
OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" python -m pytest -n 2 --dist loadfile "$@"
echo "테스트를 마쳤습니다: $((SECONDS - started))초 (tests done, in seconds)"
