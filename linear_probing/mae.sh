#!/usr/bin/env bash
# Probe MAE refined by RetFiner. Any flag of probe.py may follow and wins over those below:
#   ./mae.sh --ft_weights _weights/mine.pth --data_set OCTID OCTDL
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="$here/../.venv/bin/python"
[ -x "$python" ] || python=python
exec "$python" "$here/probe.py" --backbone MAE --model MAE --version refined \
  --init_weights "$here/_weights/mae_pretrain_vit_large.pth" \
  --ft_weights "$here/_weights/RetFiner_MAE.pth" \
  --data_root "$here/_data" --results "$here/__results" --feature_store "$here/_features" "$@"
