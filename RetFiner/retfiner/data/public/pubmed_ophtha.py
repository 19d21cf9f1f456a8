"""PubMed-Ophtha: panels of figures in open-access articles, with their captions.

One Parquet file, or a folder of its parts: ``panel_id, article_id, panel_image_bytes,
subcaption_text, in_text_mention, contains_cfp, contains_oct, license`` and more.

Traps: every column has nulls; one of kind is a no. A panel without a caption of its own takes the
sentence that mentions it. Licences differ by article: each pair keeps its own. Panels of an article
show one patient as a rule, so that the article stands for the patient. A panel may hold an OCT and
a fundus image at once: it counts as OCT.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retfiner.common.errors import InputError, shorten
from retfiner.common.progress import progress
from retfiner.data.public.spec import Pair, PublicSet
from retfiner.vision.images.png import SIGNATURE

COLUMNS = [
    "panel_id", "article_id", "panel_image_bytes", "subcaption_text", "in_text_mention",
    "contains_cfp", "contains_oct", "license",
]  # fmt: skip
UNSTATED = "unstated"


def read(path: Path, folder: Path) -> tuple[list[Pair], list[str]]:
    """Read the pairs and write their panels to the folder, as they are.

    Raises:
        InputError: If it is no such Parquet file.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    if not files:
        raise InputError(f"{path} holds no table", expected="pubmed_ophtha.parquet")
    pairs: list[Pair] = []
    lacking = other = 0
    folder.mkdir(parents=True, exist_ok=True)
    for row in _rows(files):
        is_oct, is_fundus = _is(row["contains_oct"]), _is(row["contains_cfp"])
        modality = "oct" if is_oct else "fundus" if is_fundus else ""
        content = row["panel_image_bytes"]
        if not modality or not content:
            lacking += not content
            other += not modality
            continue
        suffix = ".png" if content.startswith(SIGNATURE) else ".jpg"  # read by content
        image = folder / f"{len(pairs):06d}{suffix}"
        image.write_bytes(content)
        text = row["subcaption_text"] or row["in_text_mention"] or ""
        article = str(row["article_id"] or row["panel_id"] or "")
        pairs.append(Pair(image, text, article, modality, row["license"] or UNSTATED))
    notes = [f"{other:,} panels of other kinds left out"] if other else []
    return pairs, notes + ([f"{lacking:,} panels without an image left out"] if lacking else [])


def _is(cell: Any) -> bool:
    """Read a yes or no, also where it was written as a word or a number (u)."""
    return str(cell).casefold() in ("true", "1", "1.0")


def _rows(files: list[Path]) -> Iterator[dict[str, Any]]:
    """Read rows, some hundred in memory at a time."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise InputError("reading Parquet needs a package", got="no pyarrow",
                         remedy="pip install pyarrow") from error  # fmt: skip
    for file in files:
        try:
            table = ParquetFile(file)
            missing = sorted(set(COLUMNS) - set(table.schema_arrow.names))
            if missing:
                raise InputError(f"{file} is not PubMed-Ophtha's", expected=shorten(missing),
                                 got=shorten(table.schema_arrow.names))  # fmt: skip
            with progress("unpacking panels", table.metadata.num_rows) as bar:
                for batch in table.iter_batches(batch_size=256, columns=COLUMNS):
                    yield from batch.to_pylist()
                    bar.update(len(batch))
        except ArrowException as error:
            raise InputError(f"{file} is no intact Parquet file", got=error) from error


SET = PublicSet(
    layout="pubmed_ophtha.parquet, or a folder of its parts",
    licence="that of each article, kept in the column licence",
    citation="Hallitschke et al.: PubMed-Ophtha: An open resource for training ophthalmology "
    "vision-language models on scientific literature. arXiv:2605.02720, 2026",
    where="https://huggingface.co/pubmed-ophtha",
    patients="the article",
    read=read,
)
