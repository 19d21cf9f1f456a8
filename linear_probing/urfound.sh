#!/usr/bin/env bash
# Probe UrFound refined by RetFiner. Any flag of probe.py may follow and wins.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)" && python="$here/../.venv/bin/python"
[ -x "$python" ] || python=python3
ft=("$here"/_weights/best-model_UrFound_*_bscan.pth) # what extraction wrote, or what was released
[ -f "${ft[0]}" ] || ft=(RetFiner-U)
exec "$python" "$here/probe.py" --backbone UrFound --model UrFound --version refined --init_weights UrFound --ft_weights "${ft[@]}" \
  --data_root "$here/_data" --results "$here/__results" --feature_store "$here/_features" "$@"
