"""The files of a checked collection: all of them, or none.

Images are written relative to the folder wherever the folder and all images lie below a common one
(other than the root of the disk): the whole can then be moved together. Where they have none, paths
are absolute, and the folder can be moved alone.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from retfiner.common.errors import InputError
from retfiner.data.check.quality_control import CheckedPairs
from retfiner.data.check.shards import write_shards
from retfiner.data.check.split import TRAIN, VALIDATION
from retfiner.data.manifest import TRAINING, VALIDATING, read_manifest, require_disjoint_patients
from retfiner.data.pair_table import EXAM, KEPT_COLUMNS, NO_PATIENT_COLUMN, Columns, Reading
from retfiner.vision.images import ImageAddress

if TYPE_CHECKING:
    import pandas as pd

PAIRS = "pairs.csv"
PROBLEMS, NUMBERS, PAGE = "problems.csv", "summary.json", "summary.html"
FILES = (PAIRS, TRAINING, VALIDATING, PROBLEMS, NUMBERS, PAGE)


def require_writable(output: Path, sources: Sequence[Path], overwrite: bool) -> None:
    """Make sure, before any work, that the folder may be written.

    Raises:
        InputError: If it holds something and ``overwrite`` is false, is a file, or one of its files
            is one of ``sources``, the tables that are read.
    """
    written = {(output / name).resolve() for name in FILES}
    for source in sources:
        if source.resolve() in written:
            raise InputError(
                f"{source} would be overwritten by what is made of it",
                got=f"--output {output}",
                expected="a folder of its own",
            )
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is no folder", expected="a folder, or nothing yet")
    if output.exists() and any(output.iterdir()) and not overwrite:
        raise InputError(
            f"{output} exists and is not empty",
            remedy=f"give another --output, or --overwrite to replace {', '.join(FILES)} in it",
        )


@contextmanager
def whole_folder(output: Path) -> Iterator[Path]:
    """Yield a new folder beside ``output``; move its files there only when the block succeeds.

    It lies at the same depth, so that relative paths mean the same. Other files in ``output`` stay.
    """
    output = output.resolve()  # beside what a link points to
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.parent / f".{output.name}-{secrets.token_hex(4)}"
    temporary.mkdir()
    try:
        yield temporary
        if output.exists() and not any(output.iterdir()):
            output.rmdir()
        if not output.exists():
            temporary.replace(output)
            return
        for path in sorted(temporary.iterdir()):
            path.replace(output / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def image_cells(images: Sequence[ImageAddress], output: Path) -> list[str]:
    """Write images as they are read from a table in ``output``.

    Paths are relative to it, all of them, or absolute, all of them.
    """
    output = output.resolve()
    folders = {folder: folder.resolve() for folder in {image.path.parent for image in images}}
    # The file's own link, if it is one, is kept: what it points to may have another suffix.
    files = [folders[image.path.parent] / image.path.name for image in images]
    if _have_common_folder([output, *folders.values()]):
        files = [Path(os.path.relpath(file, output)) for file in files]
    places = [str(image).removeprefix(str(image.path)) for image in images]
    return [f"{file.as_posix()}{place}" for file, place in zip(files, places, strict=True)]


def _have_common_folder(folders: Sequence[Path]) -> bool:
    if len({folder.anchor for folder in folders}) > 1:
        return False  # of two drives
    common = Path(os.path.commonpath(folders))
    return common != Path(common.anchor)


def write_tables(
    checked: CheckedPairs, columns: Columns, reading: Reading, folder: Path, output: Path,
    shards: int | None = None,
) -> None:  # fmt: skip
    """Write the tables to ``folder``, and read the two of the split back as training does.

    The files will lie in ``output``, at the same depth; with ``shards``, images as well.

    Raises:
        InputError: If what was written cannot be trained on.
    """
    import pandas as pd  # a second: not for a wrong path

    rows = checked.pairs
    if shards is not None:
        images, root = write_shards(rows, checked.sides, shards, folder), None
    else:
        images = image_cells([row.image for row in rows], output)
        root = output if output.is_dir() else None  # images may lie in it already
    pairs = pd.DataFrame({"image": images})
    pairs["report"] = [row.report for row in rows]
    if columns.has_patient:
        pairs["patient_id"] = [row.patient for row in rows]
    if columns.group is not None:
        pairs["eye"] = [row.eye for row in rows]
    for name in KEPT_COLUMNS:
        if any(name in row.kept for row in rows):
            pairs[name] = [row.kept.get(name, "") for row in rows]
    _write_csv(pairs.assign(split=checked.sides), folder / PAIRS)
    patient = "patient_id" if columns.has_patient else NO_PATIENT_COLUMN
    written = Columns(patient=patient, group=columns.group and EXAM)
    again = Reading(encoding="utf-8", patient_ids=reading.patient_ids)
    parts = []
    for name, side in ((TRAINING, TRAIN), (VALIDATING, VALIDATION)):
        _write_csv(pairs[[its_side == side for its_side in checked.sides]], folder / name)
        part = read_manifest(folder / name, root, written, reading=again)
        parts.append(part)
    require_disjoint_patients(*parts)
    names = ["row", "column", "problem", "detail", "action", "file"]
    problems = pd.DataFrame(_problem_rows(checked, columns), columns=names)
    _write_csv(problems, folder / PROBLEMS)


def _problem_rows(checked: CheckedPairs, columns: Columns) -> Iterator[tuple[int | str, ...]]:
    for problem in checked.problems:
        row = checked.rows[problem.index]
        action = "left out" if problem.left_out else "kept"
        column, file = problem.column(columns), row.file.name
        yield row.number, column, problem.kind, problem.detail, action, file


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False, lineterminator="\n")
