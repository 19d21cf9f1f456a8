"""Check a table of image-report pairs, clean it, split it by patient, and show what it holds."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import numpy as np

from retfiner.common.cli import as_plain
from retfiner.common.commands import command
from retfiner.common.errors import InputError
from retfiner.common.faults import explained_faults
from retfiner.common.processes import count_workers
from retfiner.common.seeds import derive_seed
from retfiner.data.after_cut import (
    MAX_ALIKE,
    CutReports,
    cut_reports,
    require_different,
    require_readable,
    unknown_note,
)
from retfiner.data.check import statistics
from retfiner.data.check.config import PUBLISHED_MAX_TEXT_TOKENS, PreparePairsConfig
from retfiner.data.check.deidentification import read_identifier_list
from retfiner.data.check.made_table import made_table
from retfiner.data.check.output import NUMBERS, PAGE, require_writable, whole_folder, write_tables
from retfiner.data.check.quality_control import CheckedPairs, check_pairs
from retfiner.data.check.shards import shards_in
from retfiner.data.check.split import TEST
from retfiner.data.check.summary import Summary, count_sides, format_summary
from retfiner.data.manifest import TRAINING, VALIDATING
from retfiner.data.pair_table import EXAM, Columns, Reading, count_problems
from retfiner.text.folder import DEFAULT_TEXT_ENCODER, require_tokenizer
from retfiner.vision.images.read_as import ReadAs


@explained_faults()
def prepare_pairs(config: PreparePairsConfig) -> Summary:
    """Check, clean, split, write and print.

    Raises:
        InputError: If a table cannot be read, nothing in it can be used, or the folder is not free.
    """
    sources = [path for path in (config.csv, config.val_csv) if path is not None]
    require_writable(config.output, sources, config.overwrite)
    if config.text_encoder is not None:
        require_tokenizer(config.text_encoder)
    with made_table(config) as (made, notes):
        try:
            return _prepare(made, notes)
        except InputError:  # what was left out is often why
            print("\n".join(f"Note:           {note}" for note in notes))
            raise


def _prepare(config: PreparePairsConfig, notes: list[str]) -> Summary:
    """Do so with a table that is there; ``notes`` say what was done to make it."""
    assert config.csv is not None
    columns = Columns(
        config.image_column,
        config.report_column,
        config.patient_column,
        config.split_column,
        config.slice_column,
        ReadAs.parse(config.read_as or ""),
        config.group_column,
    )
    reading = Reading(
        config.table_encoding, config.first_slice, config.patient_ids, config.strip_common
    )
    listed = read_identifier_list(config.identifier_list)
    checked = check_pairs(
        config.csv,
        config.val_csv,
        columns,
        image_root=config.image_root,
        decode=config.decode,
        workers=count_workers(config.num_workers),
        deidentify=config.deidentify,
        leave_out_flagged=config.flagged_rows == "leave_out",
        val_fraction=config.val_fraction,
        seed=config.seed,
        reading=reading,
        listed=listed,
        not_in=config.not_in,
    )
    checked = replace(checked, notes=[*notes, *checked.notes])
    cut = _cut(config, checked)
    summary = _summarise(config, columns, checked, cut)
    _write(config, columns, reading, checked, summary)
    print(format_summary(summary))
    print(f"\nLook at:        {config.output / PAGE}")
    print(f"Next:           {command('RetFiner/train.py', *_training_words(config))}")
    return summary


def _cut(config: PreparePairsConfig, checked: CheckedPairs) -> CutReports | None:
    """Cut all reports, if there is a tokenizer, and refuse what training would."""
    reports = [row.report for row in checked.pairs]
    require_different(len(set(reports)))
    if config.text_encoder is None and not DEFAULT_TEXT_ENCODER.is_dir():
        return None
    from retfiner.text.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(config.text_encoder or DEFAULT_TEXT_ENCODER)
    cut = trained = cut_reports(tokenizer, reports, config.max_text_tokens)
    if TEST in checked.sides:
        sides = zip(reports, checked.sides, strict=True)
        seen = [report for report, side in sides if side != TEST]
        trained = cut_reports(tokenizer, seen, config.max_text_tokens)
    try:
        require_readable(trained, config.max_alike)
    except InputError:
        print("\n".join(f"Note:           {warning}" for warning in checked.warnings))
        raise
    return cut


def _summarise(
    config: PreparePairsConfig,
    columns: Columns,
    checked: CheckedPairs,
    cut: CutReports | None,
) -> Summary:
    rows, unknown = checked.pairs, None if cut is None else unknown_note(cut)
    withheld = frozenset(checked.rows[index].report for index in checked.flagged)
    return Summary(
        sources=[path.name for path in (config.csv, config.val_csv) if path is not None],
        rows=len(checked.rows),
        pairs=len(rows),
        rows_left_out=len(checked.rows) - len(rows),
        rows_with_problems=len({problem.index for problem in checked.problems}),
        rows_flagged=len(checked.flagged) if config.deidentify else None,
        problems=count_problems(checked.problems, checked.rows, columns),
        notes=checked.notes,
        warnings=[*checked.warnings, *([unknown] if unknown else [])],
        reports=statistics.describe_reports(
            [row.report for row in rows], cut, config.max_text_tokens, withheld
        ),
        images=statistics.describe_images(rows),
        patients=statistics.describe_patients(rows),
        split=count_sides(checked),
        split_is_given=config.val_csv is not None or config.split_column is not None,
        settings=as_plain(config),
        next_command=shlex.join(["python", "train.py", *_training_words(config)]),
    )


def _training_words(config: PreparePairsConfig) -> list[str]:
    words = [
        "--model_weights", "path/to/visionmodel.pth",
        "--train_csv", str(config.output / TRAINING), "--val_csv", str(config.output / VALIDATING),
    ]  # fmt: skip
    if config.group_column is not None:
        words += ["--group_column", EXAM]
    if config.patient_column == "none":
        words += ["--patient_column", "none"]
    elif config.patient_ids != "normalised":
        words += ["--patient_ids", config.patient_ids]
    if config.max_alike != MAX_ALIKE:
        words += ["--max_alike", f"{config.max_alike:g}"]
    if config.text_encoder is not None:
        words += ["--text_encoder", str(config.text_encoder)]
    if config.max_text_tokens != PUBLISHED_MAX_TEXT_TOKENS:
        words += ["--max_text_tokens", str(config.max_text_tokens)]
    return words


def _write(
    config: PreparePairsConfig,
    columns: Columns,
    reading: Reading,
    checked: CheckedPairs,
    summary: Summary,
) -> None:
    from retfiner.data.check.page import build_page, choose, make_thumbnail  # and Matplotlib

    shown = choose(checked.may_be_shown, np.random.default_rng(derive_seed(config.seed, "samples")))
    former = shards_in(config.output)
    with whole_folder(config.output) as folder:
        write_tables(checked, columns, reading, folder, config.output, config.shards)
        numbers = json.dumps(as_plain(summary), indent=2, ensure_ascii=False)
        (folder / NUMBERS).write_text(numbers + "\n", encoding="utf-8")
        page = build_page(summary, [make_thumbnail(row) for row in shown])
        (folder / PAGE).write_text(page, encoding="utf-8")
        written = {path.name for path in shards_in(folder)}
    for path in former:
        if path.name not in written:  # no table names it any more
            path.unlink()
