"""Image-to-text and text-to-image retrieval, without and with re-ranking by matching."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from retfiner.common.errors import InputError
from retfiner.common.files import whole_file
from retfiner.common.seeds import derive_seed
from retfiner.data.batch import identify_reports
from retfiner.data.manifest import Manifest
from retfiner.evaluation.chance import (
    chance_average_precision,
    chance_median_rank,
    chance_recall_at,
)
from retfiner.evaluation.config import EvaluateConfig
from retfiner.evaluation.embedding import embed_images, embed_texts
from retfiner.evaluation.intervals import patient_intervals
from retfiner.evaluation.matching import match_pairs
from retfiner.evaluation.models import Evaluated
from retfiner.evaluation.pairs import select_pairs
from retfiner.evaluation.ranking import Ranking, rank_both, rerank
from retfiner.training.recall import RECALL_AT

DEFAULT_RERANK_TOP = 16
SAVED = 10
DIRECTIONS = ("image_to_text", "text_to_image")


@dataclass(frozen=True)
class Found:
    """Both directions of a retrieval.

    Attributes:
        manifest: The N pairs.
        first: (U,) position of the first pair with each distinct report.
        report: (N,) which of the distinct reports each pair carries.
        rankings: By direction: N images among U reports, and U reports among N images.
    """

    manifest: Manifest
    first: NDArray[np.int64]
    report: NDArray[np.int64]
    rankings: dict[str, Ranking]

    def per_pair(self, direction: str) -> Ranking:
        """Return the ranking of each pair's query, so that frequent reports count as often."""
        ranking = self.rankings[direction]
        if direction == "image_to_text":
            return ranking
        return ranking.repeat(torch.from_numpy(self.report))

    def candidates(self, direction: str) -> int:
        """Return how many candidates a query of this direction has."""
        return len(self.first) if direction == "image_to_text" else len(self.report)


def evaluate_retrieval(config: EvaluateConfig, evaluated: Evaluated) -> dict[str, Any]:
    """Retrieve, score, and write what was asked for.

    Returns:
        All numbers in plain data.

    Raises:
        InputError: If the data or the model cannot be used for it.
    """
    model = evaluated.loaded.model
    if not model.is_contrastive:
        evaluated.require("itc", "retrieval")
    top = _rerank_top(config, evaluated)
    selected = select_pairs(config, evaluated.loaded.description)
    found, unreadable = retrieve(config, evaluated, selected.manifest, max(SAVED, top))
    numbers = {"itc": score(found, config.bootstrap, config.seed)}
    if top:
        found = rerank_by_matching(config, evaluated, found, top)
        numbers["itm"] = score(found, config.bootstrap, config.seed)
    if config.save is not None:
        save_rankings(config.save, found)
    manifest = found.manifest
    notes = selected.notes
    if manifest.patients is None:
        notes = [*notes, "Patients are not known: intervals go by pair and may be too narrow."]
    return {
        "part": selected.part,
        "pairs": len(manifest),
        "distinct_reports": len(found.first),
        "patients": None if manifest.patients is None else len(set(manifest.patients)),
        "left_out": len(manifest.skipped) + unreadable,
        "rerank_top": top,
        "retrieval": numbers,
        "notes": notes,
    }


def _rerank_top(config: EvaluateConfig, evaluated: Evaluated) -> int:
    if config.rerank_top is None:
        has_itm = hasattr(evaluated.loaded.model, "itm_head")
        return DEFAULT_RERANK_TOP if has_itm else 0
    if config.rerank_top:
        evaluated.require("itm", "re-ranking")
    return config.rerank_top


def retrieve(
    config: EvaluateConfig, evaluated: Evaluated, manifest: Manifest, shortlist: int
) -> tuple[Found, int]:
    """Embed images and distinct reports and rank them for each other by cosine.

    Args:
        config: Batch size, workers, and what to do with unreadable images.
        evaluated: The model.
        manifest: The pairs.
        shortlist: How many of the best to keep for each query.

    Returns:
        What was found, and how many pairs were left out because they cannot be read.

    Raises:
        InputError: If an image cannot be read and bad rows are errors.
    """
    images, bad = embed_images(evaluated, manifest.images, config.batch_size, config.num_workers)
    if bad and config.on_bad_row == "error":
        position, reason = next(iter(bad.items()))
        raise InputError(
            f"row {manifest.rows[position]} of {manifest.source}: {reason}",
            remedy="mend the file, or give --on_bad_row skip to leave it out",
        )
    if bad:
        kept = [position for position in range(len(manifest)) if position not in bad]
        manifest, images = manifest.select(kept), images[kept]
    ids = identify_reports(manifest.reports).numpy()
    _, first, report = np.unique(ids, return_index=True, return_inverse=True)
    texts = embed_texts(evaluated, [manifest.reports[position] for position in first])
    device = evaluated.device
    rankings = rank_both(
        images.to(device), texts.to(device), torch.from_numpy(report).to(device), shortlist
    )
    return Found(manifest, first, report, rankings), len(bad)


def rerank_by_matching(
    config: EvaluateConfig, evaluated: Evaluated, found: Found, top: int
) -> Found:
    """Put the first ``top`` of each query in the order of their match probability."""
    n_texts = len(found.first)
    flat: dict[str, NDArray[np.int64]] = {}
    for direction, ranking in found.rankings.items():
        listed = ranking.shortlist[:, :top].numpy()
        query = np.broadcast_to(np.arange(len(listed))[:, None], listed.shape)
        image, text = (query, listed) if direction == "image_to_text" else (listed, query)
        flat[direction] = image * n_texts + text  # one number a pair
    distinct = np.unique(np.concatenate([pairs.ravel() for pairs in flat.values()]))
    manifest = found.manifest
    probabilities = match_pairs(
        evaluated,
        manifest.images,
        [manifest.reports[position] for position in found.first],
        np.stack([distinct // n_texts, distinct % n_texts], 1),
        config.batch_size,
        config.num_workers,
    )
    rankings = {}
    for direction, pairs in flat.items():
        matches = torch.from_numpy(probabilities[np.searchsorted(distinct, pairs)])
        rankings[direction] = rerank(found.rankings[direction], matches)
    return Found(manifest, found.first, found.report, rankings)


def score(found: Found, resamples: int, seed: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Compute recall, median rank and mean average precision with intervals and chance.

    Args:
        found: What was found.
        resamples: Bootstrap resamples of the patients.
        seed: What they depend on.

    Returns:
        By direction and metric: ``value``, ``interval`` (or None) and ``chance``.
    """
    scores = {}
    for direction in DIRECTIONS:
        ranking = found.per_pair(direction)
        ranks, n_right = ranking.ranks.numpy(), ranking.n_right.numpy()
        total = found.candidates(direction)
        means = {f"recall@{k}": (ranks < k).astype(np.float64) for k in RECALL_AT}
        means["map"] = ranking.precision.numpy()
        medians = {"median_rank": ranks + 1.0}
        chance = {f"recall@{k}": chance_recall_at(k, total, n_right) for k in RECALL_AT}
        chance["map"] = chance_average_precision(total, n_right)
        chance["median_rank"] = chance_median_rank(total, n_right)
        generator = np.random.default_rng(derive_seed(seed, "bootstrap"))
        intervals = patient_intervals(means, medians, found.manifest.patients, resamples, generator)
        values = {name: float(each.mean()) for name, each in means.items()}
        values["median_rank"] = float(np.median(medians["median_rank"]))
        scores[direction] = {
            name: {"value": value, "interval": intervals.get(name), "chance": chance[name]}
            for name, value in values.items()
        }
    return scores


def save_rankings(path: Path, found: Found) -> None:
    """Write the best of each query, as rows of the CSV the pairs came from.

    A report stands for all pairs that carry it, by the row of the first.

    Args:
        path: ``.csv``, a line for each query and place; or ``.npz``, an array a direction.
        found: What was found.
    """
    rows = np.array(found.manifest.rows)
    reports = rows[found.first]
    named = {"image_to_text": (rows, reports), "text_to_image": (reports, rows)}
    if path.suffix == ".npz":
        arrays: dict[str, Any] = {}
        for direction, (queries, candidates) in named.items():
            ranking = found.rankings[direction]
            arrays[f"{direction}_query"] = queries
            arrays[f"{direction}_found"] = candidates[ranking.shortlist[:, :SAVED].numpy()]
            arrays[f"{direction}_right"] = ranking.is_right[:, :SAVED].numpy()
            arrays[f"{direction}_cosine"] = ranking.scores[:, :SAVED].numpy()
        with whole_file(path) as temporary:
            np.savez_compressed(temporary, **arrays)
        return
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["direction", "query_row", "place", "found_row", "is_right", "cosine"])
        for direction, (queries, candidates) in named.items():
            ranking = found.rankings[direction]
            listed = zip(
                queries.tolist(),
                candidates[ranking.shortlist[:, :SAVED].numpy()].tolist(),
                ranking.is_right[:, :SAVED].tolist(),
                ranking.scores[:, :SAVED].tolist(),
                strict=True,
            )
            for query, names, right, cosines in listed:
                for place, line in enumerate(zip(names, right, cosines, strict=True), 1):
                    name, is_right, cosine = line
                    writer.writerow([direction, query, place, name, int(is_right), f"{cosine:.6f}"])
