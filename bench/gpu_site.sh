#!/usr/bin/env bash
# Packs what a GPU machine without a network lacks beside torch, transformers and peft (Python 3.12, CUDA 13, x86-64).
#   bash bench/gpu_site.sh [FOLDER]             FOLDER/site: what koalpaca_tune needs to train; FOLDER: carry
#   PEERS=1 bash bench/gpu_site.sh [FOLDER]     and FOLDER/peers.tgz: what bench/peers.py measures (trl, liger, unsloth)
# There: export PYTHONPATH=$PWD:$PWD/carry/site
#        mkdir /tmp/peers; tar xzf carry/peers.tgz -C /tmp/peers; python3 bench/train.py --peers-site /tmp/peers
# Prints the sizes. Takes 20 s. PACKAGES adds to the site, by name.
set -euo pipefail
out=${1:-carry}
python="${PYTHON:-python3}"
read -ra more <<<"${PACKAGES:-}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
platforms=()
for tag in manylinux_2_{34,28,27,24,17} manylinux{2014,1}; do platforms+=(--platform "${tag}_x86_64"); done

unpacked() { # FOLDER PACKAGE...: their wheels, without what only other cards load, and Unsloth's web pages
  local folder=$1 name
  shift
  mkdir -p "$folder" "$work/wheels"
  for name in "$@"; do
    "$python" -m pip download --quiet --no-deps --only-binary=:all: --disable-pip-version-check \
      --python-version 3.12 --implementation cp "${platforms[@]}" --dest "$work/wheels" "$name" 2>"$work/said" ||
      { cat "$work/said" >&2; return 1; }
  done
  "$python" - "$folder" "$work"/wheels/*.whl <<'PY'
import re, sys, zipfile
left_out = re.compile(r"bitsandbytes/libbitsandbytes_(?!cuda130|cpu)|studio/")
for path in sys.argv[2:]:
    with zipfile.ZipFile(path) as wheel:
        wheel.extractall(sys.argv[1], [name for name in wheel.namelist() if not left_out.match(name)])
PY
  rm -r "$work/wheels"
}

rm -rf "$out/site" "$out/peers.tgz"
unpacked "$out/site" bitsandbytes==0.50.2 pydantic==2.14.3 pydantic-core==2.50.4 annotated-types typing-inspection \
  "${more[@]}"
du -sh "$out/site"
if [ "${PEERS:-0}" != 0 ]; then
  unpacked "$work/peers" trl==1.15.0 "datasets==4.8.*" dill multiprocess liger-kernel==0.8.5 unsloth==2026.10.9 \
    unsloth_zoo==2026.10.9 cut_cross_entropy tyro docstring-parser typeguard msgspec hf_transfer nest-asyncio json5 \
    structlog torchao
  tar czf "$out/peers.tgz" -C "$work/peers" .
  du -h "$out/peers.tgz"
fi
