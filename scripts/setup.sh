#!/usr/bin/env bash
# Makes .venv and installs koalpaca-tune with the exact versions of constraints.txt.
# Sourced by the other scripts; extras=dev adds what the tests need. (Not an argument: a sourced file
# would see its caller's arguments as its own.)
set -euo pipefail
top="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$top"

python="${PYTHON:-python3}"
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "Python 3.11 이상이 필요합니다. (Python 3.11 or newer is needed: PYTHON=/path/to/python3.11 bash scripts/...)" >&2
  exit 2
fi
if [ ! -x .venv/bin/python ]; then
  echo "가상 환경을 만듭니다: .venv (making a virtual environment)"
  "$python" -m venv .venv || {
    echo "venv를 만들 수 없습니다. Debian/Ubuntu라면: apt install python3-venv" >&2
    exit 2
  }
fi
extra="${extras:+[$extras]}"
wanted="$(cat setup.cfg pyproject.toml constraints.txt | cksum | tr -d " ")$extra"
if [ "$(cat .venv/.koalpaca-installed 2>/dev/null)" != "$wanted" ]; then
  echo "설치합니다: 처음에는 몇 분 걸립니다. (installing; the first time takes some minutes)"
  .venv/bin/python -m pip install -qq --disable-pip-version-check --progress-bar off \
    -c constraints.txt -e ".$extra"
  echo "$wanted" > .venv/.koalpaca-installed
fi
export PATH="$top/.venv/bin:$PATH"
