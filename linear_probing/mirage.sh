#!/usr/bin/env bash
# Probe MIRAGE refined by RetFiner. Any flag of probe.py may follow and wins over those below:
#   ./mirage.sh --ft_weights _weights/mine.pth --data_set OCTID OCTDL
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="$here/../.venv/bin/python"
[ -x "$python" ] || python=python
exec "$python" "$here/probe.py" --backbone MIRAGE --model MIRAGE --version refined \
  --init_weights "$here/_weights/MIRAGE-Large.pth" \
  --ft_weights "$here/_weights/RetFiner_MIRAGE.pth" \
  --data_root "$here/_data" --results "$here/__results" --feature_store "$here/_features" "$@"
