#!/usr/bin/env bash
# Make or reuse .venv beside this file and install requirements.txt and the two packages into it.
# Called by quickstart.sh and run_tests.sh; does nothing when all is up to date.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

wanted=$(cat requirements.txt pyproject.toml | cksum)
stamp=.venv/.installed
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
  exit 0
fi

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
  echo "error: Python 3.10 or newer is needed, got: $("$python" --version 2>&1)" >&2
  echo "remedy: PYTHON=/path/to/python3.11 $0" >&2
  exit 2
fi
echo "Installing into .venv (once; about 5 GB, 1 to 5 minutes) ..."
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/pip install --quiet --disable-pip-version-check --no-compile -r requirements.txt
.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
echo "$wanted" >"$stamp"
