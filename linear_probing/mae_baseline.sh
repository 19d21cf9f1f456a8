#!/usr/bin/env bash
# Probe MAE as published. Any flag of probe.py may follow and wins.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)" && python="$here/../.venv/bin/python"
[ -x "$python" ] || python=python3
exec "$python" "$here/probe.py" --backbone MAE --model MAE --version baseline --init_weights MAE-Large \
  --data_root "$here/_data" --results "$here/__results" --feature_store "$here/_features" "$@"
