#!/usr/bin/env bash
# Packs flash-attn-4 (extra flash4) for a GPU machine without a network: Python 3.12, CUDA 13, x86-64, 64 MiB in two parts,
# since one call to such a machine may not carry so much. Takes 6 minutes.
#   bash bench/gpu_flash4.sh [FOLDER]     FOLDER/a/part.aa, FOLDER/b/part.ab (default carry/flash4)
# There, after both have arrived:
#   mkdir -p /dev/shm/flash4; cat part.aa part.ab | tar xJ -C /dev/shm/flash4
#   export PYTHONPATH=$PYTHONPATH:/dev/shm/flash4:/dev/shm/flash4/nvidia_cutlass_dsl/dsl_packages
set -euo pipefail
out=${1:-carry/flash4}
python="${PYTHON:-python3}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
platforms=()
for tag in manylinux_2_{28,24,17} manylinux2014; do platforms+=(--platform "${tag}_x86_64"); done
"$python" -m pip download --quiet --no-deps --only-binary=:all: --disable-pip-version-check --python-version 3.12 \
  --implementation cp "${platforms[@]}" --dest "$work/wheels" flash-attn-4==4.0.0b36 quack-kernels==0.6.5 \
  torch-c-dlpack-ext==0.1.5 apache-tvm-ffi==0.1.15.post2 nvidia-cutlass-dsl==4.8.1 \
  nvidia-cutlass-dsl-libs-{base,core,cu13}==4.8.1
mkdir "$work/site"
for wheel in "$work"/wheels/*.whl; do "$python" -m zipfile -e "$wheel" "$work/site"; done
# tools to profile with, and libraries of other processors
rm -rf "$work/site/nvidia_cutlass_dsl/dsl_packages/iket" "$work"/site/nvidia_cutlass_dsl/cu13/lib/stubs/aarch64*
mkdir -p "$out/a" "$out/b"
XZ_OPT="-9e" tar cJf "$work/whole" -C "$work/site" .
head -c 38000000 "$work/whole" >"$out/a/part.aa"
tail -c +38000001 "$work/whole" >"$out/b/part.ab"
du -h "$out"/*/part.*
