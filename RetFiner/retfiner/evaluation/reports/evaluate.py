"""The report task: a report for each image, or exam, of a table, and its scores."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from retfiner.common.files import write_text
from retfiner.common.seeds import generator
from retfiner.data.manifest import Manifest
from retfiner.evaluation.config import EvaluateConfig
from retfiner.evaluation.embedding import ImageStream
from retfiner.evaluation.pairs import describe_pairs, select_pairs
from retfiner.evaluation.reports.page import build_page
from retfiner.evaluation.reports.scores import score
from retfiner.export.loading import LoadedModel
from retfiner.text.generation import Decoding


def evaluate_reports(config: EvaluateConfig, loaded: LoadedModel) -> dict[str, Any]:
    """Write a report for each image, score it, and build the page if one is asked for.

    Raises:
        InputError: If the data or the model cannot be used for it.
    """
    loaded.require("gm", "writing reports")
    selected = select_pairs(config, loaded.description)
    manifest, texts, log_probabilities = generate_reports(config, loaded, selected.manifest)
    scores = score(manifest.reports, texts)
    order = torch.randperm(len(manifest), generator=generator(config.seed, "other images"))
    commonest, _ = Counter(manifest.reports).most_common(1)[0]
    if config.page is not None:
        write_text(config.page, build_page(config, manifest, texts, scores))
    notes = selected.notes
    if not scores["findings"]:
        notes = [*notes, "The reports are not English, which is what the rules for findings read:"
                 " words alone are scored."]  # fmt: skip
    lines = zip(manifest.rows, manifest.reports, texts, log_probabilities, strict=True)
    return {
        **describe_pairs(selected, manifest),
        "distinct_written": len(set(texts)),
        "scores": scores,
        "scores_of_other_images": score(manifest.reports, [texts[i] for i in order.tolist()]),
        "scores_of_commonest_report": score(manifest.reports, [commonest] * len(manifest)),
        "commonest_report": commonest,
        "reports": [
            {"row": row, "reference": true, "written": ours, "log_probability": log_p}
            for row, true, ours, log_p in lines
        ],
        "notes": notes,
    }


def generate_reports(
    config: EvaluateConfig, loaded: LoadedModel, manifest: Manifest
) -> tuple[Manifest, list[str], list[float]]:
    """Write a report for each image, or exam, with a model refined with GM.

    Returns:
        The N pairs whose image can be read, their reports, and how likely these are: the sums over
        their tokens in nats.

    Raises:
        InputError: If an image cannot be read and bad rows are errors, or none can.
    """
    decoding = Decoding(config.decode, config.beams, config.top_p)
    stream = ImageStream(loaded, config.batch_size, config.num_workers)
    kept, texts, log_probabilities = [], [], []
    for batch in stream.batches_of_pairs(manifest, "writing", config.on_bad_row == "skip"):
        rows = [manifest.rows[position] for position in batch.positions]
        generators = [generator(config.seed, "report", row) for row in rows]
        some, likely = loaded.write_reports(batch.images, decoding, generators, batch.groups)
        kept += batch.positions
        texts += some
        log_probabilities += likely
    return manifest.select(kept), texts, log_probabilities
