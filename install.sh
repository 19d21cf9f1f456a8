#!/usr/bin/env bash
# Make or reuse .venv beside this file and install requirements.txt and the two packages into it.
# Called by quickstart.sh and run_tests.sh; does nothing when all is up to date.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

wanted=$(cat requirements.txt pyproject.toml install.sh | cksum)
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
# Compile what the commands import, a quarter of it all. Where PYTHONDONTWRITEBYTECODE is set, as in
# many containers, each command would otherwise do so anew, for as long as it takes to import it.
PYTHONDONTWRITEBYTECODE="" .venv/bin/python - <<'EOF'
import importlib
import pkgutil

import linprobe
import retfiner

for library in ("peft", "pydicom", "sklearn.linear_model", "torch.utils.tensorboard"):
    importlib.import_module(library)  # which commands do where it is needed, not at once
for package in (retfiner, linprobe):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
EOF
echo "$wanted" >"$stamp"
