#!/usr/bin/env bash
# A rented GPU machine from bare to training: driver, disk, Python, .venv with the exact versions, doctor, data, and
# what the run will take and cost; then the command that trains. Called again it does only what is missing.
#   bash scripts/runpod_setup.sh RECIPE FILE [--price PER_HOUR] [key=value ...]
#   bash scripts/runpod_setup.sh polyglot-ko-12.8b my.csv --price 2.5
set -euo pipefail
step() { printf '\n[%s] %s\n' "$1" "$2"; }
wrong() {
  echo "$1" >&2
  exit 2
}

words=() settings=() price=()
while [ $# -gt 0 ]; do
  case "$1" in
    --price)
      [[ "${2:-}" =~ ^[0-9]+([.][0-9]+)?$ ]] || wrong "--price ${2:-}: 한 시간의 값을 수로 적으세요. (a number: the price of an hour)"
      price=(--price "$2")
      shift ;;
    -*) wrong "$1: 모르는 옵션입니다. (unknown option)" ;;
    *=*) settings+=("$1") ;;
    *) words+=("$1") ;;
  esac
  shift
done
usage="bash scripts/runpod_setup.sh RECIPE my.csv [--price 2.5] [key=value ...]"
[ "${#words[@]}" -eq 2 ] || wrong "레시피와 파일이 필요합니다 (recipe and file are needed): $usage"
recipe="${words[0]}"
[ ! -f "$recipe" ] || recipe="$(realpath "$recipe")"
[ -e "${words[1]}" ] || wrong "${words[1]}: 파일이 없습니다. (no such file)"
file="$(realpath "${words[1]}")"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

step 1/6 "카드와 드라이버 (card and driver)"
gpus=1
if ! command -v nvidia-smi > /dev/null; then
  echo "NVIDIA 드라이버가 없습니다: CPU로만 돕니다. 데모는 되지만 큰 모델은 되지 않습니다. (no NVIDIA driver: CPU only; enough for the demo, not for a large model)"
elif ! cards="$(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>&1)"; then
  wrong "드라이버가 답하지 않습니다. 다른 기계를 빌리거나 다시 켜세요. (the driver does not answer; rent another machine or restart it): $(head -n 1 <<< "$cards")"
else
  echo "$cards"
  gpus="$(wc -l <<< "$cards")"
fi

step 2/6 "디스크 (disk)"
# what lies elsewhere is gone when a rented machine stops
volume="${VOLUME:-/workspace}"
cache=()
if [ -d "$volume" ] && [ -z "${HF_HOME:-}" ]; then
  export HF_HOME="$volume/huggingface"
  cache=(HF_HOME="$HF_HOME")
  echo "내려받은 모델은 $HF_HOME 에 둡니다. (downloaded models are kept there)"
fi
weights="${HF_HOME:-$HOME}"
[ -d "$weights" ] || weights="$(dirname "$weights")"
need="${DISK_GIB:-40}"
for folder in "$here" "$weights"; do
  free="$(($(df -Pk "$folder" | awk 'NR == 2 { print $4 }') / 1024 / 1024))"
  echo "$folder: ${free} GiB"
  if [ "$free" -lt "$need" ]; then
    echo "  ${need} GiB보다 적습니다. 큰 모델의 가중치가 들어가지 않을 수 있습니다. (less than DISK_GIB=${need}: the weights of a large model may not fit)"
  fi
done
case "$here/" in "$volume"/*) ;; *)
  [ ! -d "$volume" ] || echo "이 폴더는 $volume 밖에 있어, 기계를 멈추면 사라질 수 있습니다. (this folder lies outside of $volume, and may be gone when the machine stops)" ;;
esac

step 3/6 "Python과 설치 (Python, and installing)"
if [ -z "${PYTHON:-}${KOALPACA_PYTHON:-}" ]; then
  # an image's python3 is often older than another one that it has
  for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
      export PYTHON="$candidate"
      break
    fi
  done
  [ -n "${PYTHON:-}" ] || wrong "venv가 있는 Python 3.11 이상이 없습니다. Debian/Ubuntu라면: apt update && apt install python3.11-venv (no Python 3.11 or newer with venv)"
fi
source "$here/scripts/setup.sh"
python --version

step 4/6 "이 컴퓨터 확인 (doctor)"
koalpaca doctor || {
  echo "위의 '문제'를 고친 뒤 같은 명령을 다시 부르세요. (mend what is bad above, then call this again)" >&2
  exit 1
}

step 5/6 "데이터 준비 (prepare)"
run="runs/$(basename "$recipe" .yaml)"
koalpaca data prepare "$file" --out "$run-data" --overwrite

step 6/6 "메모리, 시간, 비용 (plan)"
koalpaca plan "$recipe" "${settings[@]}" data.train="$run-data/train.jsonl" data.valid="$run-data/valid.jsonl" "${price[@]}"
[ "${#price[@]}" -gt 0 ] || echo "--price를 주면 비용도 셉니다. (with --price, the cost too)"

base="$(python -c 'import sys
from koalpaca_tune.config.load import load
print(load(sys.argv[1], sys.argv[2:]).base.path)' "$recipe" "${settings[@]}")"
environment=("${cache[@]}")
if [ "$gpus" -gt 1 ]; then
  environment+=(GPUS="$gpus")
  echo "카드가 ${gpus}장입니다. 위의 시간과 비용은 한 장의 것입니다. (time and cost above are of one card)"
fi
printf '\n%s\n' "다음: 연결이 끊겨도 돌도록 tmux 안에서 (next, in tmux so that it outlives the connection):"
command=("${environment[@]}" bash scripts/sft.sh "$recipe" "$base" "$file" "${settings[@]}")
printf '  cd %q &&' "$top"
printf ' %q' "${command[@]}"
printf '\n'
