"""Run a notebook's cells in order, without Jupyter, and write it with what they print and draw.

    python docs/run_notebook.py docs/notebook.ipynb

It needs what ``quickstart.sh`` has made, in ``quickstart/`` below the folder it runs in.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

from retfiner.common.cli import flag, parse
from retfiner.common.errors import run_entry_point


@dataclass(frozen=True)
class NotebookConfig:
    """The command line."""

    notebook: Path = flag("notebook to run", positional=True)
    output: Path | None = flag("where to write it; by default in its place", None)


def run_cell(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a cell and return its outputs: what it printed, then a picture of each figure."""
    import matplotlib.pyplot as plt

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, "cell", "exec"), names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        outputs.append({"output_type": "stream", "name": "stdout", "text": text})
    for number in plt.get_fignums():
        stream = io.BytesIO()
        plt.figure(number).savefig(stream, dpi=80, metadata={"Software": None})
        picture = base64.b64encode(stream.getvalue()).decode("ascii")
        outputs.append(
            {"output_type": "display_data", "data": {"image/png": picture}, "metadata": {}}
        )
    plt.close("all")
    return outputs


def main() -> None:
    """Run every code cell with the names of those before it."""
    config = parse(NotebookConfig, "Run a notebook without Jupyter.")
    mpl.use("Agg")
    notebook = json.loads(config.notebook.read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(code, 1):
        cell["outputs"] = run_cell("".join(cell["source"]), names)
        cell["execution_count"] = number
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    (config.output or config.notebook).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_entry_point(main)
