"""The retrieval task: from a table of pairs to numbers, and to the best of each query."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from retfiner.common.files import whole_file
from retfiner.common.seeds import derive_seed
from retfiner.data.batch import identify_reports
from retfiner.data.manifest import Manifest
from retfiner.evaluation.config import EvaluateConfig
from retfiner.evaluation.embedding import ImageStream, subjects_of
from retfiner.evaluation.pairs import describe_pairs, select_pairs
from retfiner.evaluation.retrieval.metrics import score
from retfiner.evaluation.retrieval.ranking import Ranking, rank_both
from retfiner.evaluation.retrieval.reranking import rerank_by_matching
from retfiner.export.loading import LoadedModel
from retfiner.training.recall import Pairing

DEFAULT_RERANK_TOP = 16
SAVED = 10


@dataclass(frozen=True)
class Retrieval:
    """Both directions of a retrieval among N pairs with U distinct reports and V distinct images.

    Attributes:
        manifest: The pairs.
        first: (U,) position of the first pair with each distinct report.
        report: (N,) which of the distinct reports each pair carries.
        shown: (V,) position of the first pair with each distinct image.
        rankings: By direction: N pairs' images among U reports, and U reports among V images.
    """

    manifest: Manifest
    first: NDArray[np.int64]
    report: NDArray[np.int64]
    shown: NDArray[np.int64]
    rankings: dict[str, Ranking]

    @property
    def texts(self) -> list[str]:
        """The distinct reports."""
        return [self.manifest.reports[position] for position in self.first]

    @property
    def owners(self) -> list[str] | None:
        """What the bootstrap draws for each distinct report: its patient, or the report itself.

        A report that several patients carry is nobody's, and found or missed for all of them.
        """
        if self.manifest.patients is None:
            return None
        carriers: list[set[str]] = [set() for _ in self.first]
        for report, patient in zip(self.report, self.manifest.patients, strict=True):
            carriers[report].add(patient)
        return [
            f"patient {next(iter(who))}" if len(who) == 1 else f"report {number}"
            for number, who in enumerate(carriers)
        ]

    def score(self, resamples: int, seed: int) -> dict[str, dict[str, dict[str, Any]]]:
        """Score each direction: a query for each distinct report, by its images or by itself."""
        shares = 1 / np.bincount(self.report)[self.report]
        queries = {
            "image_to_text": (len(self.first), self.manifest.patients, shares),
            "text_to_image": (len(self.shown), self.owners, None),
        }
        numbers = {}
        for direction, (candidates, units, weights) in queries.items():
            rng = np.random.default_rng(derive_seed(seed, "bootstrap"))
            ranking = self.rankings[direction]
            numbers[direction] = score(ranking, candidates, units, resamples, rng, weights)
        return numbers


def evaluate_retrieval(config: EvaluateConfig, loaded: LoadedModel) -> dict[str, Any]:
    """Retrieve, score, and write what was asked for.

    Raises:
        InputError: If the data or the model cannot be used for it.
    """
    if not loaded.model.is_contrastive:
        loaded.require("itc", "retrieval")
    top = config.rerank_top
    if top is None:
        top = DEFAULT_RERANK_TOP if hasattr(loaded.model, "itm_head") else 0
    elif top:
        loaded.require("itm", "re-ranking")
    selected = select_pairs(config, loaded.description)
    stream = ImageStream(loaded, config.batch_size, config.num_workers)
    manifest, images = stream.embed_pairs(selected.manifest, config.on_bad_row == "skip")
    found = retrieve(loaded, manifest, images, max(SAVED, top))
    numbers = {"itc": found.score(config.bootstrap, config.seed)}
    if top:
        reranked = rerank_by_matching(
            stream, found.rankings, subjects_of(manifest), found.texts, top, found.shown
        )
        found = replace(found, rankings=reranked)
        numbers["itm"] = found.score(config.bootstrap, config.seed)
    if config.save is not None:
        save_rankings(config.save, found)
    notes = selected.notes
    if manifest.patients is None:
        notes = [*notes, "Patients are not known: intervals go by pair and may be too narrow."]
    return {
        **describe_pairs(selected, manifest),
        "distinct_reports": len(found.first),
        "rerank_top": top,
        "retrieval": numbers,
        "notes": notes,
    }


def retrieve(
    loaded: LoadedModel, manifest: Manifest, images: torch.Tensor, shortlist: int
) -> Retrieval:
    """Embed the distinct reports of N pairs; rank them and the images (N, E) for each other."""
    ids = identify_reports(loaded.tokenizer, manifest.reports, loaded.max_text_tokens)
    number: dict[str, int] = {}
    of_image = [number.setdefault(str(each), len(number)) for each in subjects_of(manifest)]
    pairs = Pairing.of(ids, torch.tensor(of_image))
    texts = loaded.embed_texts([manifest.reports[position] for position in pairs.reports.tolist()])
    device = loaded.device
    rankings = rank_both(images.to(device), texts.to(device), pairs, shortlist)
    first, report, shown = (part.numpy() for part in (pairs.reports, pairs.report, pairs.images))
    return Retrieval(manifest, first, report, shown, rankings)


def save_rankings(path: Path, found: Retrieval) -> None:
    """Write the best of each query, as rows of the CSV the pairs came from.

    ``.csv`` has a line for each query and place, ``.npz`` an array a direction. A report stands for
    all pairs that carry it, by the row of the first, and an image likewise as a candidate.
    """
    rows = np.array(found.manifest.rows)
    reports = rows[found.first]
    sides = {"image_to_text": (rows, reports), "text_to_image": (reports, rows[found.shown])}
    arrays: dict[str, Any] = {}
    tables = []
    for direction, (queries, candidates) in sides.items():
        ranking = found.rankings[direction]
        best = candidates[ranking.shortlist[:, :SAVED].numpy()]
        is_right = ranking.is_right[:, :SAVED].numpy()
        cosine = ranking.scores[:, :SAVED].numpy()
        kinds = {"query": queries, "found": best, "right": is_right, "cosine": cosine}
        arrays |= {f"{direction}_{kind}": values for kind, values in kinds.items()}
        places = best.shape[1]
        columns = {
            "direction": direction,
            "query_row": np.repeat(queries, places),
            "place": np.tile(np.arange(1, places + 1), len(queries)),
            "found_row": best.ravel(),
            "is_right": is_right.ravel().astype(int),
            "cosine": cosine.ravel(),
        }
        tables.append(pd.DataFrame(columns))
    with whole_file(path) as temporary:
        if path.suffix == ".npz":
            np.savez_compressed(temporary, **arrays)
        else:
            pd.concat(tables).to_csv(
                temporary, index=False, float_format="%.6f", lineterminator="\r\n"
            )
