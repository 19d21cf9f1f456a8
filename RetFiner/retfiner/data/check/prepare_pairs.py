"""Check a table of image-report pairs, clean it, split it by patient, and show what it holds."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from retfiner.common.cli import as_plain, flag
from retfiner.common.commands import command
from retfiner.common.errors import InputError
from retfiner.common.faults import explained_faults
from retfiner.common.numbers import (
    NonNegativeInt,
    OpenUnitInterval,
    PositiveInt,
)
from retfiner.common.processes import count_workers
from retfiner.common.seeds import derive_seed
from retfiner.data.after_cut import MAX_ALIKE, cut_reports, require_readable, unknown_note
from retfiner.data.table_settings import TableSettings
from retfiner.text.folder import DEFAULT_TEXT_ENCODER, require_tokenizer
from retfiner.vision.images.read_as import ReadAs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from retfiner.data.after_cut import CutReports
    from retfiner.data.check.quality_control import CheckedPairs
    from retfiner.data.check.summary import Summary
    from retfiner.data.manifest import Columns, Reading

PUBLISHED_MAX_TEXT_TOKENS = 30


@dataclass(frozen=True)
class FileSettings:
    """Files."""

    output: Path = flag("folder for the cleaned tables and the summary")
    csv: Path | None = flag(
        "table of image-report pairs: CSV, .xlsx or .parquet, with a header", None
    )
    source: list[str] | None = flag(
        "a published set instead, by name and path: pubmed_ophtha, mm_retinal, oct_summary, olives,"
        " octdl",
        None,
        metavar="NAME",
    )
    scans: Path | None = flag(
        "a folder of DICOM or vendors' files instead, joined with --reports by their headers", None
    )
    reports: Path | None = flag("export of reports that belong to --scans: CSV or .xlsx", None)
    match: str = flag(
        "what joins them, with the columns of the reports: patient=MRN,eye=Side,date=Visit",
        "patient,eye,date",
    )
    bscan: Literal["central", "all"] = flag("B-scans of a volume that become pairs", "central")
    pseudonym_key: Path | None = flag(
        "file with the secret by which patients of --scans are renamed; made if it is not there",
        None,
    )
    modality: Literal["oct", "fundus", "all"] = flag("images to take of a published set", "oct")
    read_as: str | None = flag(
        "what image files leave open, written into the tables: bits=12, axis=last, curve=log", None
    )


@dataclass(frozen=True)
class SplitSettings:
    """Split."""

    split_column: str | None = flag("column with train, val or test, if the split is given", None)
    val_csv: Path | None = flag("table for validation, where the split is given by two files", None)
    val_fraction: OpenUnitInterval = flag(
        "share of the patients split off for validation, where no split is given", 0.1
    )
    seed: NonNegativeInt = flag("seed of the split and of the pairs that are shown", 0)


@dataclass(frozen=True)
class CheckSettings:
    """Checks."""

    text_encoder: Path | None = flag(
        "folder whose tokenizer counts WordPieces; by default train.py's if it is there, else words"
        " are counted",
        None,
    )
    max_text_tokens: PositiveInt = flag(
        "reports are cut at this many WordPieces", PUBLISHED_MAX_TEXT_TOKENS
    )
    deidentify: bool = flag(
        "warn of what looks like a name, a date, a number or an address of a patient; no guarantee",
        False,
    )
    flagged_rows: Literal["leave_out", "keep"] = flag(
        "what becomes of rows --deidentify warns of", "leave_out"
    )
    identifier_list: Path | None = flag(
        "text file of names or words, one a line, that --deidentify warns of as well", None
    )
    decode: Literal["full", "header"] = flag(
        "full decodes each image; header looks at its bytes alone: faster, finds less", "full"
    )
    strict: bool = flag("exit with status 1 if there is any problem", False)


@dataclass(frozen=True)
class RunSettings:
    """Run."""

    num_workers: NonNegativeInt | None = flag(
        "processes that read images; by default one a core, at most 8", None
    )
    overwrite: bool = flag("replace what an earlier run wrote to the folder", False)


@dataclass(frozen=True)
class PreparePairsConfig(RunSettings, CheckSettings, SplitSettings, TableSettings, FileSettings):
    """Settings of ``prepare_pairs.py``; each class above is a heading of its ``--help``."""

    def __post_init__(self) -> None:
        """Check what a type alone cannot say.

        Raises:
            InputError: If two settings do not go together.
        """
        self._check_source()
        if self.split_column is not None and self.val_csv is not None:
            raise InputError(
                "--split_column and --val_csv are both given", expected="one of the two"
            )
        if self.flagged_rows == "keep" and not self.deidentify:
            raise InputError(
                "--flagged_rows keep needs --deidentify", got="no --deidentify", expected="both"
            )
        if self.identifier_list is not None and not self.deidentify:
            raise InputError(
                "--identifier_list needs --deidentify", got="no --deidentify", expected="both"
            )
        ReadAs.parse(self.read_as or "")
        if self.seed >= 2**32:
            raise InputError("--seed is too large", got=self.seed, expected="less than 2**32")
        if self.max_text_tokens < 3:
            raise InputError(
                "--max_text_tokens leaves no room for a word",
                got=self.max_text_tokens,
                expected="at least 3: [CLS], one WordPiece, [SEP]",
            )

    def _check_source(self) -> None:
        given = [self.csv, self.source, self.scans]
        if sum(value is not None for value in given) != 1:
            raise InputError(
                "nothing says what the pairs are, or two flags do",
                got=f"--csv {self.csv}, --source {self.source}, --scans {self.scans}",
                expected="one of --csv TABLE, --source NAME PATH and --scans DIR",
            )
        if (self.scans is None) != (self.reports is None):
            raise InputError("--scans and --reports go together", got="one of them alone")
        if self.source is None:
            return
        from retfiner.data.public import PUBLIC_SETS

        if len(self.source) != 2 or self.source[0] not in PUBLIC_SETS:
            raise InputError(
                "--source takes the name of a published set and its path",
                got=" ".join(self.source),
                expected="one of " + ", ".join(PUBLIC_SETS) + ", and a file or folder",
                remedy="a set that is not listed needs a table: --csv",
            )
        if self.decode == "header" and self.not_in is not None:
            raise InputError("--not_in compares pixels", got="--decode header", expected="full")


@explained_faults()
def prepare_pairs(config: PreparePairsConfig) -> Summary:
    """Check, clean, split, write and print.

    Raises:
        InputError: If a table cannot be read, nothing in it can be used, or the folder is not free.
    """
    from retfiner.data.check.made_table import made_table
    from retfiner.data.check.output import require_writable

    sources = [path for path in (config.csv, config.val_csv) if path is not None]
    require_writable(config.output, sources, config.overwrite)
    if config.text_encoder is not None:
        require_tokenizer(config.text_encoder)
    with made_table(config) as (made, notes):
        return _prepare(made, notes)


def _prepare(config: PreparePairsConfig, notes: list[str]) -> Summary:
    """Do so with a table that is there; ``notes`` say what was done to make it."""
    from retfiner.data.check.deidentification import read_identifier_list
    from retfiner.data.check.output import PAGE
    from retfiner.data.check.quality_control import check_pairs
    from retfiner.data.check.summary import format_summary
    from retfiner.data.manifest import Columns, Reading

    assert config.csv is not None
    columns = Columns(
        config.image_column,
        config.report_column,
        config.patient_column,
        config.split_column,
        config.slice_column,
        ReadAs.parse(config.read_as or ""),
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
    from retfiner.data.check.split import TEST

    tokenizer = _load_tokenizer(config.text_encoder)
    if tokenizer is None:
        return None
    reports = [row.report for row in checked.pairs]
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


def _load_tokenizer(folder: Path | None) -> PreTrainedTokenizerBase | None:
    if folder is None and not DEFAULT_TEXT_ENCODER.is_dir():
        return None
    from retfiner.text.tokenizer import load_tokenizer

    return load_tokenizer(DEFAULT_TEXT_ENCODER if folder is None else folder)


def _summarise(
    config: PreparePairsConfig,
    columns: Columns,
    checked: CheckedPairs,
    cut: CutReports | None,
) -> Summary:
    from retfiner.data.check import statistics
    from retfiner.data.check.summary import Summary, count_sides
    from retfiner.data.pair_table import count_problems

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
    from retfiner.data.check.output import TRAINING, VALIDATING

    words = [
        "--model_weights", "path/to/visionmodel.pth",
        "--train_csv", str(config.output / TRAINING), "--val_csv", str(config.output / VALIDATING),
    ]  # fmt: skip
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
    from retfiner.data.check.output import NUMBERS, PAGE, whole_folder, write_tables
    from retfiner.data.check.page import build_page, choose, make_thumbnail

    shown = choose(checked.may_be_shown, np.random.default_rng(derive_seed(config.seed, "samples")))
    with whole_folder(config.output) as folder:
        write_tables(checked, columns, reading, folder, config.output)
        numbers = json.dumps(as_plain(summary), indent=2, ensure_ascii=False)
        (folder / NUMBERS).write_text(numbers + "\n", encoding="utf-8")
        page = build_page(summary, [make_thumbnail(row) for row in shown])
        (folder / PAGE).write_text(page, encoding="utf-8")
