#!/usr/bin/env bash
# Probe MAE refined by RetFiner. Any flag of probe.py may follow and wins.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)" && python="$here/../.venv/bin/python"
[ -x "$python" ] || python=python3
ft=("$here"/_weights/best-model_MAE_*_bscan.pth) # what extraction wrote
exec "$python" "$here/probe.py" --backbone MAE --model MAE --version refined --init_weights MAE-Large --ft_weights "${ft[@]}" \
  --data_root "$here/_data" --results "$here/__results" --feature_store "$here/_features" "$@"
