"""Every setting of ``prepare_pairs.py``: one field, one flag, one line of ``--help``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retfiner.common.cli import flag
from retfiner.common.errors import InputError
from retfiner.common.numbers import NonNegativeInt, OpenUnitInterval, PositiveInt
from retfiner.data.table_settings import TableSettings
from retfiner.vision.images.read_as import ReadAs

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
    reports: Path | None = flag(
        "reports that belong to --scans: CSV, .xlsx, or a folder of DICOM structured reports", None
    )
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
    group_column: str | None = flag(
        "column with the exam that rows are of: one report for all images, volumes and folders,"
        " each of which gets a row",
        None,
    )
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
    shards: PositiveInt | None = flag(
        "write pairs into tar files too, so many of training, which train.py reads, here or from a"
        " server",
        None,
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
