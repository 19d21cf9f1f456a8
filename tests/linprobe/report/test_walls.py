"""The report reads results alone: it must start without torch and without the probing code."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPORT = Path(__file__).parents[3] / "linear_probing" / "linprobe" / "report"


@pytest.mark.parametrize("path", sorted(REPORT.glob("*.py")), ids=lambda path: path.name)
def test_a_module_imports_nothing_of_the_packages_but_its_neighbours(path):
    imported = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.append(node.module)
        elif isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
    ours = [name for name in imported if name.split(".")[0] in ("linprobe", "retfiner", "torch")]
    allowed = ("linprobe.report", "linprobe.statistics", "linprobe.units", "retfiner.common")
    assert [name for name in ours if not name.startswith(allowed)] == []


def test_nothing_brings_torch_along():
    code = "import sys, linprobe.report.build; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"
