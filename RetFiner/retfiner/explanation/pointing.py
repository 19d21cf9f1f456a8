"""Do the maps point? Measured on phantoms, whose findings have known places.

``python -m retfiner.explanation.pointing --model models/<name> --phantoms ../phantoms``

For each finding that a report names, the map of the words that name it is compared with the
finding's place: does its maximum fall there (the pointing game, Zhang et al., 2018), and how well
does it rank patches inside above those outside (area under the ROC curve)? Chance is what a map
that knows nothing would reach. Lesions crowd around the fovea, so that a map which always looks
there beats chance; *swapped* therefore gives each scan the maps of the other scans with the same
finding. What a map reaches beyond that, it has seen in the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from scipy.stats import binomtest, mannwhitneyu

from retfiner.common.cli import flag, parse
from retfiner.common.devices import resolve_device
from retfiner.common.errors import run_entry_point
from retfiner.common.numbers import NonNegativeInt
from retfiner.data.manifest import read_manifest, split_by_patient
from retfiner.data.phantoms.masks import Mask
from retfiner.data.phantoms.scene import KINDS, Kind
from retfiner.explanation.grounding import (
    Array,
    GroundedPhrase,
    Method,
    phantom_phrases,
    phrase_maps,
)
from retfiner.export.loading import read_model


class Score(NamedTuple):
    """How well one kind of map points at one finding, or at all of them.

    Attributes:
        method: The kind of map and its layer.
        finding: Which finding; None for all.
        phrases: Number of phrases.
        hits: In how many the maximum falls on the finding.
        chance: Expected share of hits of a map that knows nothing.
        swapped: Share of hits with the maps of other scans that show the same finding.
        auroc: Mean area under the ROC curve, patches inside against patches outside.
        swapped_auroc: The same with the maps of other scans.
    """

    method: Method
    finding: Kind | None
    phrases: int
    hits: int
    chance: float
    swapped: float
    auroc: float
    swapped_auroc: float

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share of hits."""
        found = binomtest(self.hits, self.phrases).proportion_ci(method="wilson")
        return float(found.low), float(found.high)


class WordScore(NamedTuple):
    """Whether it is the word that points, on scans with several named findings.

    ``own`` is the share of findings that their own words' maps hit, ``other`` that which the words
    of another finding of the same scan hit.
    """

    method: Method
    phrases: int
    own: float
    other: float


@dataclass(frozen=True)
class PointingConfig:
    """The command line of ``python -m retfiner.explanation.pointing``."""

    model: Path = flag("run folder or best-model.ckpt of a refined model")
    phantoms: Path = flag("folder that python -m retfiner.data.phantoms has written")
    patients: Literal["validation", "all"] = flag(
        "validation: those that the model's run split off pairs.csv; all: it has seen none of them",
        "validation",
    )
    tolerance: NonNegativeInt = flag("patches beside the finding that still count as a hit", 0)
    text_encoder: Path | None = flag("folder with the tokenizer, for old checkpoints", None)
    device: str = flag("cpu, cuda, mps, or auto", "auto")


def measure(
    phrases: Sequence[GroundedPhrase], maps: Mapping[Method, Array], tolerance: int = 0
) -> list[Score]:
    """Measure how well each kind of map (N, g, g) points at N findings.

    Up to ``tolerance`` patches beside the finding still count as a hit.

    Returns:
        For each kind of map, all findings together and then each one.
    """
    scores = []
    for method, stack in maps.items():
        found = []
        for finding in KINDS:
            rows = [row for row, phrase in enumerate(phrases) if phrase.finding == finding]
            if rows:
                masks = [phrases[row].mask for row in rows]
                found.append((finding, _points(masks, stack[rows], tolerance)))
        every = np.concatenate([points for _, points in found])
        scores.append(_score(method, None, every))
        scores += [_score(method, finding, points) for finding, points in found]
    return scores


def compare_words(
    phrases: Sequence[GroundedPhrase], maps: Mapping[Method, Array], tolerance: int = 0
) -> list[WordScore]:
    """Compare each finding's own words with the other findings' words of the same scan."""
    groups: dict[Path, list[int]] = {}
    for row, phrase in enumerate(phrases):
        groups.setdefault(phrase.image, []).append(row)
    several = [rows for rows in groups.values() if len(rows) > 1]
    scores = []
    for method, stack in maps.items():
        own, other = [], []
        for rows in several:
            near = [_near(phrases[row].mask, stack.shape[-1], tolerance) for row in rows]
            hits = np.stack([_hits(stack[rows], place) for place in near])
            own += hits.diagonal().tolist()
            other += ((hits.sum(1) - hits.diagonal()) / (len(rows) - 1)).tolist()
        if own:
            scores.append(WordScore(method, len(own), float(np.mean(own)), float(np.mean(other))))
    return scores


def on_patches(mask: Mask, side: int) -> Mask:
    """Say which of ``side`` x ``side`` patches a mask (H, W) touches."""
    touched = np.zeros((side, side), np.bool_)
    rows, columns = np.nonzero(mask)
    touched[rows * side // mask.shape[0], columns * side // mask.shape[1]] = True
    return touched


def auroc(maps: Array, inside: Mask) -> NDArray[np.float64]:
    """Compute the area under the ROC curve: do maps (M, g, g) rank patches inside (g, g) higher?

    Returns:
        (M,), 0.5 for constant maps and where all or no patches are inside.
    """
    flat, chosen = maps.reshape(len(maps), -1), inside.ravel()
    if chosen.all() or not chosen.any():
        return np.full(len(maps), 0.5)
    wins = mannwhitneyu(flat[:, chosen], flat[:, ~chosen], axis=1, method="asymptotic").statistic
    return wins / (chosen.sum() * (~chosen).sum())


def _points(masks: Sequence[Mask], maps: Array, tolerance: int) -> NDArray[np.float64]:
    """Score the maps (N, g, g) of N scans with the same finding.

    Returns:
        (N, 5): hit, chance of a hit, swapped hits, AUROC, swapped AUROC; swapped ones are NaN
        where there is no other scan.
    """
    count, side = len(maps), maps.shape[-1]
    rows = []
    for own, mask in enumerate(masks):
        near = _near(mask, side, tolerance)
        hits, areas = _hits(maps, near), auroc(maps, on_patches(mask, side))
        others = np.arange(count) != own
        swapped = (hits[others].mean(), areas[others].mean()) if count > 1 else (np.nan, np.nan)
        rows.append((hits[own], near.mean(), swapped[0], areas[own], swapped[1]))
    return np.array(rows, np.float64)


def _near(mask: Mask, side: int, tolerance: int) -> Mask:
    """Say where on the patches the maximum of a map counts as a hit."""
    inside = on_patches(mask, side)
    if not tolerance:
        return inside
    return binary_dilation(inside, np.ones((3, 3)), iterations=tolerance)


def _hits(maps: Array, near: Mask) -> NDArray[np.float64]:
    """Say of each map (M, g, g) whether its maximum is a hit; one without a maximum is none."""
    flat = maps.reshape(len(maps), -1)
    points = flat.max(1) > flat.min(1)
    return (points & near.ravel()[flat.argmax(1)]).astype(np.float64)


def _score(method: Method, finding: Kind | None, points: NDArray[np.float64]) -> Score:
    hit, chance, swapped, area, swapped_area = points.T
    known = ~np.isnan(swapped)
    others = (swapped[known].mean(), swapped_area[known].mean()) if known.any() else (np.nan,) * 2
    shares = map(float, (chance.mean(), others[0], area.mean(), others[1]))
    return Score(method, finding, len(points), int(hit.sum()), *shares)


def as_table(scores: Iterable[Score], words: Iterable[WordScore]) -> str:
    """Lay scores out as a table of text."""
    row = "{:<13}{:<36}{:>5}{:>8}{:>14}{:>8}{:>9}{:>7}{:>9}"
    heads = ("map", "finding", "n", "hits", "95 %", "chance", "swapped", "AUROC", "swapped")
    lines = [row.format(*heads)]
    for score in scores:
        low, high = score.interval
        lines.append(
            row.format(
                _name(score.method),
                score.finding or "all",
                score.phrases,
                f"{100 * score.hits / score.phrases:.1f} %",
                f"{100 * low:.0f} to {100 * high:.0f} %",
                f"{100 * score.chance:.1f} %",
                # Of a finding that one scan alone has there are no others' maps.
                "–" if np.isnan(score.swapped) else f"{100 * score.swapped:.1f} %",
                f"{score.auroc:.3f}",
                "–" if np.isnan(score.swapped_auroc) else f"{score.swapped_auroc:.3f}",
            )
        )
    of_words = list(words)
    several = "On scans with several named findings, a finding is hit"
    lines.append(f"\n{several}" if of_words else "\nNo scan has several findings that are named.")
    for word in of_words:
        lines.append(
            f"{_name(word.method):<13}in {100 * word.own:.1f} % by its own words, in "
            f"{100 * word.other:.1f} % by another finding's (n = {word.phrases})"
        )
    return "\n".join(lines)


def _name(method: Method) -> str:
    name, layer = method
    return name if layer is None else f"{name} {layer}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure a model as the command line asks, and print the table."""
    config = parse(PointingConfig, "Measure whether word maps point at known findings", arguments)
    loaded = read_model(config.model, resolve_device(config.device), config.text_encoder)
    chosen = read_manifest(config.phantoms / "pairs.csv")
    if config.patients == "validation":
        settings = loaded.description["settings"]
        _, chosen = split_by_patient(chosen, settings["val_fraction"], settings["seed"])
    phrases, maps = phrase_maps(loaded, list(phantom_phrases(config.phantoms, chosen)))
    print(f"{len(chosen)} scans, {len(phrases)} findings that their reports name")
    scores = measure(phrases, maps, config.tolerance)
    print(as_table(scores, compare_words(phrases, maps, config.tolerance)))


if __name__ == "__main__":
    run_entry_point(main)
