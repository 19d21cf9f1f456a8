#!/usr/bin/env bash
# Does this machine's GPU compute what the CPU does, do the scripts run on it, and how fast?
#
#     benchmarks/gpu.sh                                # all of it: at most eight minutes
#     benchmarks/gpu.sh checks runs measure profile    # or some of it
#     benchmarks/gpu.sh --device cpu                   # a rehearsal with tiny sizes, without a GPU
#
# PYTHON names the interpreter; --output the folder for gpu.json and the scripts' own output.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH="$PWD/RetFiner:$PWD/linear_probing${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
exec "${PYTHON:-python}" benchmarks/gpu.py "$@"
