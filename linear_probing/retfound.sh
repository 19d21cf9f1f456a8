#!/usr/bin/env bash
# Probe RETFound refined by RetFiner. Any flag of probe.py may follow and wins over those below:
#   ./retfound.sh --ft_weights _weights/mine.pth --data_set OCTID OCTDL
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="$here/../.venv/bin/python"
[ -x "$python" ] || python=python
exec "$python" "$here/probe.py" --backbone RETFound --model RETFound --version refined \
  --init_weights "$here/_weights/RETFound_oct_weights.pth" \
  --ft_weights "$here/_weights/RetFiner_RETFound.pth" \
  --data_root "$here/_data" --results "$here/__results" --feature_store "$here/_features" "$@"
