#!/usr/bin/env bash
# Lint, types and tests, on a fresh machine too. Arguments go to pytest: ./run_tests.sh -k itc
# RETFINER_SLOW=1 runs the tests marked slow as well.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
./install.sh

export PATH="$PWD/.venv/bin:$PATH" HF_HUB_OFFLINE=1 MPLBACKEND=Agg OMP_WAIT_POLICY=PASSIVE
echo "== ruff";   ruff check . && ruff format --check .
echo "== mypy";   mypy
echo "== pytest"
# A file of tests stays in one process, and with it what its tests share; -n 0 runs all in this one.
tests=(python -m pytest -n logical --maxprocesses 4 --dist loadfile)
if [ -z "${RETFINER_SLOW:-}" ]; then
  exec "${tests[@]}" -m "not slow" "$@"
fi
exec "${tests[@]}" "$@"
