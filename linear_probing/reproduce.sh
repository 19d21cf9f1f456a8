#!/usr/bin/env bash
# From names and downloads to the paper's table of seven tasks: RETFound, UrFound and VisionFM, each
# as published, as refined by its authors, and as refined by you. What is missing is said at once;
# what is done is not done again.
#
#   ./reproduce.sh [--model RETFound] [--data_set OCTDL OCTID] [--own RETFound=mine.pth]
#
# --help has every flag. Weights are found by name (pretrained_weights/get.py); downloads of data
# sets lie in _downloads/<name>/. Each command is shown as you would type it yourself.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="$here/../.venv/bin/python"
[ -x "$python" ] || python=python3
case " $* " in *" -h "* | *" --help "*) exec "$python" "$here/reproduce.py" --help ;; esac

plan="$("$python" "$here/reproduce.py" "$@")"
while IFS= read -r line; do
  printf '\n$ %s\n' "$line"
  eval "$line" </dev/null
done <<<"$plan"
