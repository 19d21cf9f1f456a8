"""Tables of pairs that prepare_pairs.py makes first: of a published set, of scans and reports."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from retfiner.common.errors import InputError
from retfiner.data.check.config import PreparePairsConfig
from retfiner.data.check.scan_reports import join, parse_match
from retfiner.data.public import PUBLIC_SETS
from retfiner.data.public.spec import AS_PUBLISHED, Pair, as_table
from retfiner.vision.images.reading import PACKED

PUBLISHED, PANELS = "published.csv", "panels"
JOINED, UNMATCHED = "joined.csv", "unmatched.csv"


@contextmanager
def made_table(config: PreparePairsConfig) -> Iterator[tuple[PreparePairsConfig, list[str]]]:
    """Yield settings whose table is there, and notes; what was made goes if the block fails.

    Raises:
        InputError: If the source is no such set.
    """
    folder = config.output.resolve()
    written = [folder / name for name in (PUBLISHED, JOINED, UNMATCHED)]
    try:
        if config.source is not None:
            yield _of_published_set(config, folder)
        elif config.scans is not None:
            yield _of_scans(config, folder)
        else:
            yield config, []
    except BaseException:
        if config.csv is None:
            for path in written:
                path.unlink(missing_ok=True)
            shutil.rmtree(folder / PANELS, ignore_errors=True)
        raise


def _of_published_set(
    config: PreparePairsConfig, folder: Path
) -> tuple[PreparePairsConfig, list[str]]:
    assert config.source is not None
    name, path = config.source[0], Path(config.source[1]).expanduser()
    pairs, notes = _read(name, path, folder / PANELS, config.modality)
    folder.mkdir(parents=True, exist_ok=True)
    as_table(pairs).to_csv(folder / PUBLISHED, index=False, lineterminator="\n")
    made = sum(pair.made_from != AS_PUBLISHED for pair in pairs)
    if made:
        notes.append(f"{made:,} reports are made from {pairs[0].made_from} by a template")
    if not PUBLIC_SETS[name].patients:
        notes.append("the set names no patients: one may be on both sides of the split")
    patient = config.patient_column if PUBLIC_SETS[name].patients else "none"
    config = replace(config, csv=folder / PUBLISHED, source=None, patient_column=patient)
    return config, [f"{name}: {note}" for note in notes]


def _of_scans(config: PreparePairsConfig, folder: Path) -> tuple[PreparePairsConfig, list[str]]:
    import pandas as pd

    assert config.scans is not None and config.reports is not None
    columns = parse_match(config.match)
    joined = join(
        config.scans, config.reports, columns, config.report_column, config.bscan,
        config.pseudonym_key, config.table_encoding,
    )  # fmt: skip
    if not joined.rows:
        raise InputError(
            f"no scan of {config.scans} matches a report of {config.reports}",
            got="; ".join(joined.notes),
            expected=f"the same {', '.join(columns)} in headers and columns",
            remedy="--match patient joins by patient alone; --match patient=MRN names a column",
        )
    folder.mkdir(parents=True, exist_ok=True)
    names = ["image", "report", "patient_id", "eye", "exam"]
    for rows, header, name in (
        (joined.rows, names, JOINED),
        (joined.unmatched, ["file_or_row", "reason"], UNMATCHED),
    ):
        table = pd.DataFrame(rows, columns=header)
        table.to_csv(folder / name, index=False, lineterminator="\n")
    exams = "exam" if config.bscan == "all" else None  # one report for all of them
    made = replace(config, csv=folder / JOINED, scans=None, reports=None, table_encoding=None,
                   report_column="report", patient_column="patient_id",
                   group_column=config.group_column or exams)  # fmt: skip
    notes = list(joined.notes)
    if config.deidentify:  # its rows are what problems.csv counts by
        notes.append(f"{JOINED} holds every report, those too that --deidentify warns of: keep it"
                     " where the patients are known")  # fmt: skip
    return made, notes


def _read(name: str, path: Path, images: Path, modality: str) -> tuple[list[Pair], list[str]]:
    if not path.exists():
        raise InputError(
            f"there is no {path}", expected=f"{PUBLIC_SETS[name].layout}",
            remedy=f"download it: {PUBLIC_SETS[name].where}",
        )  # fmt: skip
    if path.is_file() and path.suffix.lower() in (*PACKED, ".tar"):
        raise InputError(
            f"{path} is packed",
            got=path.suffix,
            expected=PUBLIC_SETS[name].layout,
            remedy="unpack it, and give the folder",
        )
    found, notes = PUBLIC_SETS[name].read(path, images)
    pairs = [pair for pair in found if modality in ("all", pair.modality)]
    if len(pairs) < len(found):
        notes.append(f"{len(found) - len(pairs):,} pairs of other kinds of image left out:"
                     f" --modality {modality}")  # fmt: skip
    for pair in found:
        if pair.image.parent == images and modality not in ("all", pair.modality):
            pair.image.unlink()
    if not pairs:
        raise InputError(f"{path} holds no pair of {name} that is wanted",
                         got=f"{len(found):,} pairs of all kinds, --modality {modality}",
                         expected=PUBLIC_SETS[name].layout)  # fmt: skip
    return pairs, notes
