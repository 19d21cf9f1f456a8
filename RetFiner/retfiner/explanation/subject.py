"""What is explained: the image that is named, or the exam of a model that was refined on exams."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retfiner.common.errors import InputError
from retfiner.data.exams import Slices, contents_of, fill_reports, find_mixed_reports, gather
from retfiner.data.kinds import is_unnamed, see_kinds, with_kinds
from retfiner.data.manifest import read_whole
from retfiner.data.pair_table import Columns, PairRow, Reading, by_its_training, find_unusable_rows
from retfiner.data.pictures import ExamPictures, as_seen, choose_pictures, pictures_of
from retfiner.explanation.config import ExplainConfig
from retfiner.export.loading import LoadedModel, require_exams
from retfiner.vision.images import ImageAddress, why_unusable

Subject = ImageAddress | ExamPictures


def named_by_hand(loaded: LoadedModel, image: str) -> Subject:
    """Find an image by its address; a volume or a folder is an exam where the model knows them.

    Raises:
        InputError: If it cannot be used.
    """
    address = ImageAddress.parse(image)
    is_one = address.index is not None or not address.path.is_dir()
    if loaded.model.pooling is None and not is_one:
        require_exams(loaded.model)
    if loaded.model.pooling is None or why_unusable(address) is None:
        return as_seen(address)  # of a volume alone, its reader asks which B-scan is meant
    return choose_pictures([address], "", "", Slices.of(loaded.description["settings"]))


def named_by_row(loaded: LoadedModel, config: ExplainConfig) -> tuple[Subject, str]:
    """Find the image, or exam, of a row of a table, and its report.

    Columns are as in the model's training, where they are not named.

    Raises:
        InputError: If the row cannot be used.
    """
    assert config.data is not None
    settings = loaded.description["settings"]
    columns = Columns.as_trained(settings, config)
    if columns.group is None:
        columns = Columns(columns.image, columns.report, "none", slice=columns.slice)
    else:
        require_exams(loaded.model)
    rows, own = _read_rows(config.data, config, columns, settings)
    members = [own]
    if columns.group is not None:
        members = fill_reports([row for row in rows if row.group == own.group])
    problems = [problem for problem in find_unusable_rows(members) if problem.left_out]
    for problem in problems[:1]:
        why = f"{problem.kind} {problem.detail}".strip()
        raise _unusable(config, members[problem.index], why)
    for row in members:
        if row.unclear:
            raise _unusable(config, row, row.unclear)
    if columns.group is None:
        [own] = with_kinds([own], see_kinds([own.image] if is_unnamed(own) else []))
        return own.image, own.report
    mixed = find_mixed_reports(members)
    if mixed:
        raise _unusable(config, own, f"{mixed[0].kind}: {mixed[0].detail}")
    contents = {row.image: contents_of(row.image) for row in members}
    for row in members:
        if isinstance(contents[row.image], str):
            raise _unusable(config, row, contents[row.image])
    usable = {image: found for image, found in contents.items() if not isinstance(found, str)}
    unnamed = [row.image for row in members if is_unnamed(row)]
    kinds = see_kinds(content.address for image in unnamed for content in usable[image])
    [(first, exam)] = gather(members, usable, kinds)
    return pictures_of(exam, Slices.of(settings)), first.report


def _read_rows(
    data: Path, config: ExplainConfig, columns: Columns, settings: Mapping[str, Any]
) -> tuple[list[PairRow], PairRow]:
    """Read the rows of a table as in training, and find the one that is named."""
    reading = Reading.as_trained(settings, data)
    with by_its_training():
        [table] = read_whole([data], columns, config.image_root, reading)
    own = next((row for row in table.rows if row.number == config.row), None)
    if own is None:
        raise InputError(f"{data} has no such row", got=f"--row {config.row}")
    return table.rows, own


def _unusable(config: ExplainConfig, row: PairRow, why: object) -> InputError:
    return InputError(f"row {row.number} of {config.data} cannot be used", got=why)
