r"""Turn a data set as downloaded into the layout that probing reads.

    python prepare_dataset.py OCTDL --source OCTDL.zip --output _data
    python prepare_dataset.py folder --source DIR --patient_regex "(P\d+)_"
    python prepare_dataset.py --list

``docs/data_sets.md`` has a page on each.
"""

from __future__ import annotations

import linprobe  # noqa: F401 - it finds retfiner where that is not installed
from retfiner.common.errors import run_entry_point


def main() -> None:
    """Parse the command line, prepare, and say what was written."""
    from linprobe.prepare.config import PrepareConfig
    from retfiner.common.cli import parse

    description = "Turn a data set as downloaded into the layout that probing reads."
    config = parse(PrepareConfig, description)
    from linprobe.prepare import folder
    from linprobe.prepare.prepare import prepare
    from linprobe.prepare.registry import DATASETS, find_spec
    from linprobe.prepare.show import list_of_data_sets, show_prepared

    if config.list or config.name is None:
        print(list_of_data_sets(DATASETS.values()))
        return
    if config.name == folder.NAME:
        show_prepared(prepare(config, folder.spec_of(config.source[0].resolve().stem)))
    else:
        show_prepared(prepare(config, find_spec(config.name)))


if __name__ == "__main__":
    run_entry_point(main)
