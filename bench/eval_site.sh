#!/usr/bin/env bash
# Packs what bench/eval.py needs on a GPU machine without a network: bench/gpu_site.sh's site with lm-eval 0.4.13 (its
# KoBEST tasks only) and datasets in it, the KoBEST files and the tokenizer.
#   bash bench/eval_site.sh DATA_ROOT [FOLDER]      DATA_ROOT: ../shared/data; FOLDER: carry
# There: export PYTHONPATH=$PWD:$PWD/carry/site TRITON_INTERPRET=0 TOKENIZERS_PARALLELISM=true
#        python3 bench/eval.py carry/eval --shape polyglot-ko-5.8b --limit 250 --repeats 1
# Prints the sizes. Takes 30 s.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$1 out=${2:-carry}
PACKAGES="lm-eval==0.4.13 datasets==4.8.* dill multiprocess" bash bench/gpu_site.sh "$out"
find "$out/site/lm_eval/tasks" -mindepth 1 -maxdepth 1 -type d ! -name kobest -exec rm -r {} +
rm -rf "$out/eval"
mkdir -p "$out/eval/kobest"
for task in BoolQ COPA WiC HellaSwag SentiNeg; do
  mkdir "$out/eval/kobest/$task"
  cp "$root/kobest/$task/"{train,dev,test}.tsv "$out/eval/kobest/$task/"
done
mkdir "$out/eval/polyglot_tokenizer"
cp "$root"/polyglot_tokenizer/{tokenizer,tokenizer_config,special_tokens_map}.json "$out/eval/polyglot_tokenizer/"
chmod -R u+w "$out/eval"
du -sh "$out/site" "$out/eval"
