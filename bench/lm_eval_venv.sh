#!/usr/bin/env bash
# A virtual environment with lm-eval 0.4.13 beside koalpaca_tune, for bench/lm_eval_parity.py. Two to three minutes.
#   bash bench/lm_eval_venv.sh [FOLDER]      FOLDER: runs/lm-eval-venv
# lm-eval is not among the extras: it brings 40 packages that nothing else here uses. It goes in without its
# dependencies (pip was still looking for versions after two minutes), and those that KoBEST needs after it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-runs/lm-eval-venv}
"${PYTHON:-python3}" -m venv "$out"
install=("$out/bin/python" -m pip install -q --disable-pip-version-check)
"${install[@]}" -c constraints.txt -e .
"${install[@]}" --no-deps lm-eval==0.4.13
"${install[@]}" -c constraints.txt datasets dill evaluate jinja2 more_itertools pytablewriter rouge-score sacrebleu \
  scikit-learn sqlitedict typepy word2number
echo "$out/bin/python bench/lm_eval_parity.py ../shared/data"
