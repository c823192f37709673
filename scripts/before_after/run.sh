#!/usr/bin/env bash
# A real before/after: a base of 100 M parameters pre-trained on Korean Wikipedia, tuned with QLoRA on a mixture of
# KoBEST train, film reviews and short conversations, and judged before and after with the toolkit's own commands.
#   bash scripts/before_after/run.sh [--tiny] STAGE...      stages, in this order:
#     tokenise                 the tokenizer and the token ids (CPU, ../shared/data, 10 minutes)
#     mixture                  the tuning's data, held-out conversations, files of the tasks (CPU)
#     site, pack               (for a GPU machine without a network) its packages; carry/base100m/call-1, call-2, ...
#     receive                  (there, first in every call) unpacks what was carried
#     probe                    a few steps on what has come so far: speed, loss, compiled code for the next stage
#     pretrain                 the base, in MINUTES of wall clock
#     tune SEED..., evaluate SEED...    several seeds run side by side, with logs in OUT
#     report                   the pages, from all seeds that were judged, into RESULTS
#     gather                   what is to come back, as one file in OUT
# A stage that is done is not done again. --tiny: a base of 2 M parameters, 20 steps, a few items, on the CPU.
# Variables: WORK (runs/base100m), DATA (../shared/data), CARRY (carry/base100m), OUT (WORK/out), RESULTS
# (WORK/results), PYTHON, MINUTES (6), OPTIONS (more for probe and pretrain, as in '--embed-lr 0.04 --no-compile').
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=scripts/before_after
tiny=0
[ "${1:-}" != --tiny ] || { tiny=1; shift; }
[ $# -gt 0 ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 2; }
python=${PYTHON:-python3} data=${DATA:-../shared/data} carry=${CARRY:-carry/base100m} minutes=${MINUTES:-6}
export HF_HUB_OFFLINE=1 COLUMNS=${COLUMNS:-120} PYTHONUNBUFFERED=1
if [ $tiny = 1 ]; then
  work=${WORK:-runs/base-tiny} vocab=4096 share=0.01
  shape=(--width 192 --layers 2 --heads 3 --inner 768 --batch 4 --warmup 5 --log-every 5 --no-compile --device cpu)
  length=(--tokens 81920)
  tuning=(training.max_steps=20 training.batch_size=4 training.warmup_steps=2 lora.r=8 lora.dropout=0.0
    evaluation.heldout_limit=4 evaluation.max_new_tokens=16)
  asking=(--limit 8)
else
  work=${WORK:-runs/base100m} vocab=20480 share=1
  # 48 windows: at three epochs many small steps teach more than few large ones; vectors learn at half the rate of
  # the embedded base, whose last gain is three times as large
  shape=(--width 768 --layers 12 --heads 12 --inner 3072 --batch 48 --warmup 200 --vector-lr 0.003
    --log-every 100 --check-every 500)
  length=(--minutes "$minutes")
  # a budget for each of two runs side by side: this base needs less
  tuning=(engine.memory_budget=30) asking=()
fi
read -ra options <<<"${OPTIONS:-}"
shape+=("${options[@]}")
out=${OUT:-$work/out}
mkdir -p "$work" "$out"
carried() { if [ -e "$work/.site" ]; then export PYTHONPATH=$PWD:$work/site:$work/kiwi; fi; }
carried
koalpaca() { "$python" -m koalpaca_tune.cli.main "$@"; }
base() { "$python" scripts/embedded_base.py "$1" --data "$data" --work "$work" --vocab-size "$vocab" "${@:2}"; }

tokenise() {
  [ -e "$work/tokenizer.json" ] || base tokenizer --articles-only --share "$share"
  [ -e "$work/held_out.json" ] || base encode --articles-only --share "$share"
}

mixture() {
  if [ ! -e "$work/prepared/report.json" ]; then
    local few=()
    [ $tiny = 0 ] || few=(--set 'inputs=[{path: "source:kobest", cap: 200}, {path: "source:nsmc", cap: 300},
      {path: "source:chatbot_data", cap: 1000}]')
    koalpaca data prepare --preparation $here/preparation.yaml --data-root "$data" --out "$work/prepared" \
      --overwrite --workers 1 "${few[@]}"
  fi
  "$python" $here/files.py "$data" "$work"
}

site() {
  PACKAGES="httpx2 httpcore2 truststore kiwipiepy==0.24.1" PYTHON=$python bash bench/gpu_site.sh "$work"
  rm -rf "$work/kiwi"
  mkdir -p "$work/kiwi"
  cp -r "$("$python" -c 'import kiwipiepy_model as k; print(k.__path__[0])')" "$work/kiwi/"
}

pack() { "$python" $here/carry.py pack "$work" "$carry"; }
receive() { "$python" $here/carry.py receive "$carry" "$work"; carried; }

probe() { # as many steps as it takes to time them and to check the compiled gradients
  mkdir -p "$work/probe"
  for name in train.npy held_out.npy held_out.json; do ln -sf "$(realpath "$work")/$name" "$work/probe/$name"; done
  "$python" scripts/embedded_base.py train --work "$work/probe" --vocab-size "$vocab" "${shape[@]}" \
    --tokens "${PROBE_TOKENS:-7400000}" --log-every 25 2>&1 | tee "$out/probe.log"
  rm -r "$work/probe"
}

pretrain() {
  if [ ! -e "$work/model/provenance.json" ]; then
    base train "${shape[@]}" "${length[@]}" 2>&1 | tee "$work/pretrain.log"
    base export --model "$work/model"
  fi
  cp "$work/pretrain.log" "$out/"
}

tune() {
  local run=$work/tuned-$1 again=()
  [ -e "$run/adapter/adapter_model.safetensors" ] && return
  if compgen -G "$run/checkpoints/step-*" >/dev/null; then again=(--resume); else rm -rf "$run"; fi
  koalpaca train $here/recipe.yaml "base.path=$work/model" "data.train=$work/prepared/train.jsonl" \
    "data.valid=$work/prepared/valid.jsonl" "out=$run" "seed=$1" "${tuning[@]}" "${again[@]}"
}

evaluate() {
  local judged=$work/judged-$1 before
  if [ ! -e "$judged/base/result.json" ]; then
    for before in "$work"/judged-*/base/result.json; do # the base is the same for every seed
      [ -e "$before" ] && mkdir -p "$judged" && cp -r "$(dirname "$before")" "$judged/" && break
    done
  fi
  koalpaca eval "$work/model" --adapter "$work/tuned-$1/adapter" --suite $here/suite.yaml --data-root "$work/data" \
    --heldout "$work/prepared/heldout.jsonl" --out "$judged" "${asking[@]}"
  koalpaca compare "$judged/base" "$judged/adapter" --out "$work/seed-$1" --without-texts
}

report() { # of all seeds that were compared; the seeds are also compared with each other
  local seeds=("$work"/judged-*/adapter/result.json) first second
  if [ ${#seeds[@]} -gt 1 ]; then
    first=$(dirname "${seeds[0]}") second=$(dirname "${seeds[1]}")
    koalpaca compare "$first" "$second" --out "$work/between-seeds" --without-texts >"$work/between-seeds.txt"
  fi
  "$python" $here/page.py "$work" "${RESULTS:-$work/results}"
}

gather() { "$python" $here/carry.py gather "$work" "$out/before-after.tar.xz"; }

of_seeds() { # STAGE SEED...
  local stage=$1 seed failed=0
  shift
  [ $# -gt 0 ] || { echo "error: $stage needs a seed, as in: $stage 1" >&2; exit 2; }
  if [ $# = 1 ]; then "$stage" "$1"; return; fi
  for seed in "$@"; do ("$stage" "$seed") >"$out/$stage-$seed.log" 2>&1 & done
  for seed in "$@"; do wait -n || failed=1; done
  for seed in "$@"; do echo "-- $stage $seed" && tail -n 40 "$out/$stage-$seed.log"; done
  [ $failed = 0 ]
}

while [ $# -gt 0 ]; do
  stage=$1
  shift
  seeds=()
  while [[ ${1:-} =~ ^[0-9]+$ ]]; do seeds+=("$1"); shift; done
  echo "== $stage ${seeds[*]} ($(date -u +%T))"
  case $stage in
    tune | evaluate) of_seeds "$stage" "${seeds[@]}" ;;
    tokenise | mixture | site | pack | receive | probe | pretrain | report | gather) "$stage" ;;
    *) echo "error: no stage '$stage'. Call without words for the list." >&2; exit 2 ;;
  esac
done
echo "== done ($(date -u +%T))"
