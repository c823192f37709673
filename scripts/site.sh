#!/usr/bin/env bash
# Builds the documentation as a site, strictly: a link that leads nowhere ends it. Into build/site/, with index.html.
#   bash scripts/site.sh          builds
#   bash scripts/site.sh serve    builds, shows it on http://127.0.0.1:8000, and builds again at every change
set -euo pipefail
if [ $# -gt 1 ] || { [ $# -eq 1 ] && [ "$1" != serve ]; }; then
  echo "$*: 인자는 없거나 serve입니다. (no argument, or serve)" >&2
  exit 2
fi
top="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$top"

python="${PYTHON:-python3}"
venv=build/site-venv
wanted="$(cat constraints.txt scripts/site.sh | cksum | tr -d " ")"
if [ "$(cat $venv/.installed 2> /dev/null)" != "$wanted" ]; then
  echo "사이트를 만드는 도구를 설치합니다: $venv (installing what builds the site)"
  "$python" -m venv $venv
  # not in .venv: nothing of koalpaca-tune is needed to build its pages
  $venv/bin/python -m pip install -qq --disable-pip-version-check --progress-bar off -c constraints.txt \
    "mkdocs>=1.6,<2" "mkdocs-material>=9.6,<10" "mkdocs-static-i18n>=1.3,<2"
  echo "$wanted" > $venv/.installed
fi
# without the advertisement of another generator
export NO_MKDOCS_2_WARNING=1

if [ "${1:-}" = serve ]; then
  exec $venv/bin/mkdocs serve --dev-addr 127.0.0.1:8000
fi
# not --quiet, which would not count the warnings that --strict ends on
$venv/bin/mkdocs build --strict
# it is read behind firewalls: a script, style sheet or picture from elsewhere would be missing there
if grep -rnoiE '<(script|img|link rel="?(stylesheet|preload|icon))[^>]*(src|href)="?(https?:)?//[^" >]*' build/site --include='*.html'; then
  echo "위의 것은 다른 곳에서 가져오는 것입니다. (the site must bring all that it shows)" >&2
  exit 1
fi
echo "사이트: build/site/index.html (the site)"
