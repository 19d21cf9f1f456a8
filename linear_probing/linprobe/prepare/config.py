"""Every setting of ``prepare_dataset.py``: one field, one flag, one line of ``--help``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from linprobe.prepare.spec import BScanChoice, Options
from retfiner.common.cli import flag
from retfiner.common.errors import InputError
from retfiner.common.numbers import NonNegativeInt

Paths: TypeAlias = list[Path]
Shares: TypeAlias = list[float]
BScanFlag: TypeAlias = Literal["central", "all"] | NonNegativeInt  # a negative one counts nothing
# Named here because the flag --list hides Python's own list within the class below.


@dataclass(frozen=True)
class DownloadSettings:
    """Data set."""

    name: str | None = flag(
        "the data set, or folder for pictures of your own; --list shows all", None, positional=True
    )
    source: Paths = flag(
        "the download: a folder or an archive (zip, tar), or several that are joined",
        [],
        repeatable=True,
    )
    output: Path = flag("folder of the data sets; <output>/<name> is written", Path("_data"))
    overwrite: bool = flag("replace the data set of this name in --output", False)
    list: bool = flag("show the data sets that can be prepared, and end", False)


@dataclass(frozen=True)
class SplitSettings:
    """Split."""

    split: Shares | None = flag(
        "shares of train, val and test; by default the data set's, usually 0.5 0.25 0.25", None
    )
    seed: NonNegativeInt | None = flag("seed of the split; by default 0", None)


@dataclass(frozen=True)
class ImageSettings:
    """Images and labels."""

    bscan: BScanFlag | None = flag(
        "B-scans of a volume: central, all, or the index of one; by default central", None
    )
    zero_borders: bool | None = flag(
        "blacken white borders; by default where the data set has them", None
    )
    label: Literal["bscan", "patient"] | None = flag(
        "NEHUT2D: the B-scan's own label or the patient's diagnosis; by default bscan", None
    )
    slice_axis: Literal["first", "last"] | None = flag(
        "Harvard_Glaucoma: axis that counts B-scans; by default the first", None
    )
    labels: Path | None = flag(
        "folder: table with columns image, label, maybe patient; by default folders are classes",
        None,
    )
    patient_regex: str | None = flag(
        "folder: regular expression whose group is the patient, in a picture's path", None
    )
    num_workers: NonNegativeInt | None = flag(
        "processes that read and write images, 0 for none besides this; by default one a core", None
    )


@dataclass(frozen=True)
class PrepareConfig(ImageSettings, SplitSettings, DownloadSettings):
    """Settings of ``prepare_dataset.py``; None everywhere means that nothing was asked for.

    Each class above is a heading of its ``--help``.
    """

    def __post_init__(self) -> None:
        """Raise an InputError if something is missing or two settings do not go together."""
        if self.list:
            return
        if self.name is None:
            raise InputError(
                "Which data set is to be prepared?",
                expected="its name as the first word, as in: prepare_dataset.py OCTDL --source ...",
                remedy="--list shows the names",
            )
        if not self.source:
            raise InputError(
                "Where is the download?",
                expected="--source <folder or archive>",
                remedy="--list shows the addresses to download from",
            )
        shares = self.split or [1.0]
        if self.split is not None and (
            len(shares) != 3 or min(shares) <= 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6)
        ):
            raise InputError(
                "--split does not say how to divide a data set",
                got=" ".join(f"{share:g}" for share in shares),
                expected="three positive shares of train, val and test that add up to 1",
            )

    def options(self) -> Options:
        """Give what a data set's own file goes by, with the defaults filled in."""
        bscan: BScanChoice = "central" if self.bscan is None else self.bscan
        label = self.label or "bscan"
        return Options(bscan, label, self.slice_axis, self.labels, self.patient_regex)

    def given(self, *names: str) -> str:
        """Name those of the flags that were given, for a message; empty if there are none."""
        return ", ".join(f"--{name}" for name in names if getattr(self, name) is not None)
