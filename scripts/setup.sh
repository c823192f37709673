#!/usr/bin/env bash
# Makes .venv and installs koalpaca-tune with the exact versions of constraints.txt; afterwards the folder is the
# repository's. Sourced by the other scripts; extras=dev adds what the tests need. (Not an argument: a sourced
# file would see its caller's arguments as its own.)
#   KOALPACA_PYTHON=/path/to/python    uses that environment, with koalpaca in it, and installs nothing
set -euo pipefail
if [ -n "${KOALPACA_PYTHON:-}" ]; then
  # before the folder changes, so that a relative path means what it says
  bin="$(dirname "$(realpath -s "$(command -v -- "$KOALPACA_PYTHON" || echo "$KOALPACA_PYTHON")")")"
  if ! "$KOALPACA_PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
    echo "KOALPACA_PYTHON=$KOALPACA_PYTHON: 실행할 수 있는 Python 3.11 이상이 아닙니다. (not an executable Python 3.11 or newer)" >&2
    exit 2
  fi
  if [ ! -x "$bin/koalpaca" ]; then
    echo "KOALPACA_PYTHON=$KOALPACA_PYTHON: 그 환경에 koalpaca가 없습니다. (koalpaca is not installed in its environment)" >&2
    exit 2
  fi
fi
top="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$top"

if [ -z "${KOALPACA_PYTHON:-}" ]; then
  bin="$top/.venv/bin"
  python="${PYTHON:-python3}"
  if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
    echo "Python 3.11 이상이 필요합니다. (Python 3.11 or newer is needed: PYTHON=/path/to/python3.11 bash scripts/...)" >&2
    exit 2
  fi
  if [ ! -x .venv/bin/python ]; then
    echo "가상 환경을 만듭니다: .venv (making a virtual environment)"
    "$python" -m venv .venv || {
      echo "venv를 만들 수 없습니다. Debian/Ubuntu라면: apt install python3-venv (venv is missing)" >&2
      exit 2
    }
  fi
  extra="${extras:+[$extras]}"
  versions="$(cat setup.cfg pyproject.toml constraints.txt | cksum | tr -d " ")"
  installed="$(cat .venv/.koalpaca-installed 2> /dev/null || true)"
  # without extras, an installation with some serves as well
  if [ "$installed" != "$versions$extra" ] && { [ -n "$extra" ] || [ "${installed%%\[*}" != "$versions" ]; }; then
    echo "설치합니다: 처음에는 몇 분 걸립니다. (installing; the first time takes some minutes)"
    .venv/bin/python -m pip install -qq --disable-pip-version-check --progress-bar off \
      -c constraints.txt -e ".$extra"
    echo "$versions$extra" > .venv/.koalpaca-installed
  fi
fi
export PATH="$bin:$PATH"
