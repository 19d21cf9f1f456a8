"""Reports written from images, and how close they are to those that clinicians wrote."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch

from retfiner.common.errors import InputError
from retfiner.common.files import write_text
from retfiner.common.seeds import generator
from retfiner.data.manifest import Manifest
from retfiner.evaluation.config import EvaluateConfig
from retfiner.evaluation.images import ReadImages, stream_images
from retfiner.evaluation.models import Evaluated
from retfiner.evaluation.page import build_page
from retfiner.evaluation.pairs import select_pairs
from retfiner.evaluation.text_scores import score_findings, score_words
from retfiner.text.generation import Decoding, special_tokens, write_reports


@dataclass(frozen=True)
class WrittenReports:
    """Reports beside the true ones.

    Attributes:
        manifest: The N pairs.
        texts: N reports that were written.
        log_probabilities: N sums over their tokens, in nats.
    """

    manifest: Manifest
    texts: list[str]
    log_probabilities: list[float]


def evaluate_reports(config: EvaluateConfig, evaluated: Evaluated) -> dict[str, Any]:
    """Write a report for each image, score it, and build the page if one is asked for.

    Returns:
        All numbers and reports in plain data.

    Raises:
        InputError: If the data or the model cannot be used for it.
    """
    evaluated.require("gm", "writing reports")
    selected = select_pairs(config, evaluated.loaded.description)
    written, unreadable = write_for_images(config, evaluated, selected.manifest)
    manifest = written.manifest
    scores = score(manifest.reports, written.texts)
    order = torch.randperm(len(manifest), generator=generator(config.seed, "other images"))
    control = score(manifest.reports, [written.texts[i] for i in order.tolist()])
    commonest, _ = Counter(manifest.reports).most_common(1)[0]
    if config.page is not None:
        write_text(config.page, build_page(config, written.manifest, written.texts, scores))
    lines = zip(
        manifest.rows, manifest.reports, written.texts, written.log_probabilities, strict=True
    )
    return {
        "part": selected.part,
        "pairs": len(manifest),
        "patients": None if manifest.patients is None else len(set(manifest.patients)),
        "left_out": len(manifest.skipped) + unreadable,
        "distinct_written": len(set(written.texts)),
        "scores": scores,
        "scores_of_other_images": control,
        "scores_of_commonest_report": score(manifest.reports, [commonest] * len(manifest)),
        "commonest_report": commonest,
        "reports": [
            {"row": row, "reference": true, "written": ours, "log_probability": log_p}
            for row, true, ours, log_p in lines
        ],
        "notes": selected.notes,
    }


def score(references: list[str], written: list[str]) -> dict[str, Any]:
    """Score words and findings together."""
    return {**score_words(references, written), **score_findings(references, written)}


@torch.no_grad()
def write_for_images(
    config: EvaluateConfig, evaluated: Evaluated, manifest: Manifest
) -> tuple[WrittenReports, int]:
    """Write a report for each image.

    Args:
        config: Decoding, seed, batch size, workers, and what to do with unreadable images.
        evaluated: A model refined with GM.
        manifest: The pairs.

    Returns:
        The reports, and how many pairs were left out because they cannot be read.

    Raises:
        InputError: If an image cannot be read and bad rows are errors.
    """
    texts: list[str] = []
    log_probabilities: list[float] = []
    kept: list[int] = []
    for batch in stream_images(
        manifest.images, evaluated.transform, config.batch_size, config.num_workers, "writing"
    ):
        if batch.unreadable and config.on_bad_row == "error":
            position, reason = batch.unreadable[0]
            raise InputError(
                f"row {manifest.rows[position]} of {manifest.source}: {reason}",
                remedy="mend the file, or give --on_bad_row skip to leave it out",
            )
        if not batch.positions:
            continue
        some, scores = _write_batch(config, evaluated, batch, manifest)
        texts += some
        log_probabilities += scores
        kept += batch.positions
    if not kept:
        raise InputError("no image can be read", got=str(manifest.source))
    left_out = len(manifest) - len(kept)
    return WrittenReports(manifest.select(kept), texts, log_probabilities), left_out


def _write_batch(
    config: EvaluateConfig, evaluated: Evaluated, batch: ReadImages, manifest: Manifest
) -> tuple[list[str], list[float]]:
    loaded = evaluated.loaded
    text = loaded.model.multimodal_encoder
    with evaluated.autocast():
        tokens = loaded.model.encode_images(batch.images.to(evaluated.device))
        written = write_reports(
            text,
            text.project_image(tokens),
            special_tokens(loaded.tokenizer),
            loaded.max_text_tokens,
            Decoding(config.decode, config.beams, config.top_p),
            [generator(config.seed, "report", manifest.rows[i]) for i in batch.positions],
        )
    return [loaded.tokenizer.decode(ids) for ids in written.tokens], written.log_probabilities
