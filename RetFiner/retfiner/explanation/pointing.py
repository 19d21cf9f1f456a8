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

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from scipy.stats import binomtest, rankdata

from retfiner.common.cli import flag, parse
from retfiner.common.devices import resolve_device
from retfiner.common.errors import InputError, run_entry_point
from retfiner.common.numbers import NonNegativeInt
from retfiner.data.manifest import Manifest, read_manifest, split_by_patient
from retfiner.data.phantom_masks import Mask, masks_of_pairs
from retfiner.data.phantom_scene import KINDS, Kind
from retfiner.explanation.maps import token_maps
from retfiner.explanation.rollout import rollout
from retfiner.explanation.words import words_of
from retfiner.loading import LoadedModel, read_model
from retfiner.text.tokenizer import tokenize
from retfiner.vision import evaluation_transform, read_image

PHRASES: dict[Kind, str] = {
    "drusen": r"\bdrusen(oid)?\b",
    "geographic_atrophy": r"\bgeographic atrophy\b|\bGA\b|\batrophy\b",
    "intraretinal_fluid": r"\bintraretinal (fluid|cysts)\b|\bIRF\b|\bcystoid macular oedema\b",
    "subretinal_fluid": r"\bsubretinal fluid\b|\bSRF\b|\bneurosensory detachment\b",
    "pigment_epithelial_detachment": r"\bPED\b|\bpigment epithelial detachment\b",
    "subretinal_hyperreflective_material": r"\bSHRM\b|\bsubretinal hyperreflective material\b",
    "epiretinal_membrane": r"\bepiretinal (membrane|gliosis)\b|\bERM\b",
    "vitreomacular_traction": r"\bvitreomacular traction\b|\bVMT\b",
    "macular_hole": r"\b(macular )?hole\b|\bFTMH\b",
    "rnfl_thinning": r"\bRNFL (thinning|thinned)\b|\bnerve fibre\b",
}
"""How the phantoms' reports name each finding; what is absent is denied in other reports only."""

BATCH = 32
Array = NDArray[np.float32]
Method = tuple[str, int | None]
"""Name of a kind of map, and its layer; None where all layers have their part in it."""


class Case(NamedTuple):
    """A scan with a report that names a finding whose place is known.

    Attributes:
        image: Path of the scan.
        report: Its report.
        finding: What is looked for.
        mask: (H, W) where it lies.
    """

    image: Path
    report: str
    finding: Kind
    mask: Mask


class Score(NamedTuple):
    """How well one kind of map points at one finding, or at all of them.

    Attributes:
        method: The kind of map and its layer.
        finding: Which finding; None for all.
        cases: Number of cases.
        hits: In how many the maximum falls on the finding.
        chance: Expected share of hits of a map that knows nothing.
        swapped: Share of hits with the maps of other scans that show the same finding.
        auroc: Mean area under the ROC curve, patches inside against patches outside.
        swapped_auroc: The same with the maps of other scans.
    """

    method: Method
    finding: Kind | None
    cases: int
    hits: int
    chance: float
    swapped: float
    auroc: float
    swapped_auroc: float

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share of hits."""
        found = binomtest(self.hits, self.cases).proportion_ci(method="wilson")
        return float(found.low), float(found.high)


@dataclass(frozen=True)
class PointingConfig:
    """The command line of ``python -m retfiner.explanation.pointing``."""

    model: Path = flag("run folder or best-model.ckpt of a refined model")
    phantoms: Path = flag("folder that python -m retfiner.data.phantom has written")
    patients: Literal["validation", "all"] = flag(
        "validation: those that the model's run split off pairs.csv; all: it has seen none of them",
        "validation",
    )
    tolerance: NonNegativeInt = flag("patches beside the finding that still count as a hit", 0)
    text_encoder: Path | None = flag("folder with the tokenizer, for old checkpoints", None)
    device: str = flag("cpu, cuda, mps, or auto", "auto")


def phantom_cases(folder: Path, chosen: Manifest) -> Iterator[Case]:
    """Yield the findings that the reports of chosen phantoms name.

    Args:
        folder: The folder of phantoms.
        chosen: Rows of its ``pairs.csv``.
    """
    reports = {
        image.path.relative_to(folder).as_posix(): report
        for image, report in zip(chosen.images, chosen.reports, strict=True)
    }
    for name, masks in masks_of_pairs(folder, set(reports)):
        for finding, mask in masks.items():
            if re.search(PHRASES[finding], reports[name], flags=re.IGNORECASE):
                yield Case(folder / name, reports[name], finding, mask)


def measure(loaded: LoadedModel, cases: Sequence[Case], tolerance: int = 0) -> list[Score]:
    """Measure how well each kind of map points.

    Args:
        loaded: A model refined with ITM.
        cases: What is to be found; those whose words are cut from the report are left out.
        tolerance: Patches beside the finding that still count as a hit.

    Returns:
        For each kind of map, all findings together and then each one.

    Raises:
        InputError: If no case is left.
    """
    kept, maps = _maps_of(loaded, cases)
    if not kept:
        raise InputError("No report names a finding that lies in its image", got=len(cases))
    scores = []
    for method, values in maps.items():
        stack = np.stack(values)
        found = [
            (finding, _points([c.mask for c in part], stack[rows], tolerance))
            for finding in KINDS
            if (rows := [i for i, case in enumerate(kept) if case.finding == finding])
            for part in [[kept[i] for i in rows]]
        ]
        every = np.concatenate([points for _, points in found])
        scores += [_score(method, finding, points) for finding, points in [(None, every), *found]]
    return scores


def _maps_of(
    loaded: LoadedModel, cases: Sequence[Case]
) -> tuple[list[Case], dict[Method, list[Array]]]:
    """Return the cases whose words were read, and for each kind of map their (g, g) maps."""
    kept: list[Case] = []
    maps: dict[Method, list[Array]] = {}
    for first in range(0, len(cases), BATCH):
        batch = cases[first : first + BATCH]
        for case, found in zip(batch, _batch_maps(loaded, batch), strict=True):
            if found:
                kept.append(case)
                for method, values in found.items():
                    maps.setdefault(method, []).append(values)
    return kept, maps


def _batch_maps(loaded: LoadedModel, cases: Sequence[Case]) -> Iterator[dict[Method, Array]]:
    """Yield the maps of each case, nothing where its words were cut."""
    model, transform = loaded.model, evaluation_transform(loaded.model.backbone)
    device = next(model.parameters()).device
    images = torch.stack([transform(read_image(case.image)) for case in cases]).to(device)
    text = tokenize(loaded.tokenizer, [case.report for case in cases], loaded.max_text_tokens)
    maps = token_maps(model, images, *(part.to(device) for part in text))
    flow = rollout(model.backbone, images).float().cpu().numpy()
    for row, case in enumerate(cases):
        pieces = _pieces(loaded, case)
        found: dict[Method, Array] = {}
        if pieces:
            for name, values in (("attention", maps.attention), ("weighted", maps.weighted)):
                layers = values[:, row, pieces].mean(1).float().cpu().numpy()
                layers = layers[:-1] if name == "weighted" else layers  # the last one is zero
                found |= {(name, layer): layers[layer] for layer in range(len(layers))}
            found["rollout", None] = flow[row]
        yield found


def _pieces(loaded: LoadedModel, case: Case) -> list[int]:
    """Find the WordPieces by which a report names a finding."""
    words = words_of(loaded.tokenizer, case.report, loaded.max_text_tokens)
    spans = [m.span() for m in re.finditer(PHRASES[case.finding], case.report, re.IGNORECASE)]
    return [
        piece
        for word in words
        if any(word.start < end and start < word.end for start, end in spans)
        for piece in word.pieces
    ]


def on_patches(mask: Mask, side: int) -> Mask:
    """Say which of ``side`` x ``side`` patches a mask (H, W) touches."""
    touched = np.zeros((side, side), np.bool_)
    rows, columns = np.nonzero(mask)
    touched[rows * side // mask.shape[0], columns * side // mask.shape[1]] = True
    return touched


def auroc(maps: Array, inside: Mask) -> Array:
    """Compute the area under the ROC curve: does a map rank patches inside above those outside?

    Args:
        maps: (M, g, g).
        inside: (g, g).

    Returns:
        (M,), 0.5 for constant maps and where all or no patches are inside.
    """
    chosen = inside.ravel()
    positives, negatives = chosen.sum(), (~chosen).sum()
    if not positives or not negatives:
        return np.full(len(maps), 0.5, np.float32)
    ranks = rankdata(maps.reshape(len(maps), -1), axis=1)[:, chosen].sum(1)
    area = (ranks - positives * (positives + 1) / 2) / (positives * negatives)
    return area.astype(np.float32)


def _points(masks: Sequence[Mask], maps: Array, tolerance: int) -> NDArray[np.float64]:
    """Score the maps (N, g, g) of N scans with the same finding.

    Returns:
        (N, 5): hit, chance of a hit, swapped hits, AUROC, swapped AUROC; swapped ones are NaN
        where there is no other scan.
    """
    count, side = len(maps), maps.shape[-1]
    flat = maps.reshape(count, -1)
    # A map that is the same everywhere points nowhere: its maximum is a miss.
    points = np.where(flat.max(1) > flat.min(1), flat.argmax(1), -1)
    rows = []
    for own, mask in enumerate(masks):
        inside = on_patches(mask, side)
        near = inside
        if tolerance:
            near = binary_dilation(inside, np.ones((3, 3)), iterations=tolerance)
        hits = np.where(points >= 0, near.ravel()[points], False).astype(float)
        areas = auroc(maps, inside)
        others = np.arange(count) != own
        swapped = (hits[others].mean(), areas[others].mean()) if count > 1 else (np.nan, np.nan)
        rows.append((hits[own], near.mean(), swapped[0], areas[own], swapped[1]))
    return np.array(rows, np.float64)


def _score(method: Method, finding: Kind | None, points: NDArray[np.float64]) -> Score:
    known = points[~np.isnan(points[:, 2])]
    swapped, swapped_auroc = known[:, [2, 4]].mean(0) if len(known) else (np.nan, np.nan)
    hits, chance, area = points[:, 0].sum(), points[:, 1].mean(), points[:, 3].mean()
    return Score(
        method,
        finding,
        len(points),
        int(hits),
        float(chance),
        float(swapped),
        float(area),
        float(swapped_auroc),
    )


def as_lines(scores: Iterable[Score]) -> Iterator[str]:
    """Lay scores out as a table of text."""
    head = ("map", "finding", "n", "hits", "95 %", "chance", "swapped", "AUROC", "swapped")
    widths = (12, 36, 5, 7, 13, 7, 8, 6, 8)
    yield "".join(
        name.ljust(width) if place < 2 else name.rjust(width)
        for place, (name, width) in enumerate(zip(head, widths, strict=True))
    )
    for score in scores:
        name, layer = score.method
        low, high = score.interval
        cells = (
            name if layer is None else f"{name} {layer}",
            "all" if score.finding is None else score.finding,
            str(score.cases),
            f"{100 * score.hits / score.cases:.1f} %",
            f"{100 * low:.0f} to {100 * high:.0f} %",
            f"{100 * score.chance:.1f} %",
            f"{100 * score.swapped:.1f} %",
            f"{score.auroc:.3f}",
            f"{score.swapped_auroc:.3f}",
        )
        yield "".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure a model as the command line asks, and print the table."""
    config = parse(PointingConfig, "Measure whether word maps point at known findings", arguments)
    loaded = read_model(config.model, resolve_device(config.device), config.text_encoder)
    chosen = read_manifest(config.phantoms / "pairs.csv")
    if config.patients == "validation":
        settings = loaded.description["settings"]
        _, chosen = split_by_patient(chosen, settings["val_fraction"], settings["seed"])
    cases = list(phantom_cases(config.phantoms, chosen))
    scores = measure(loaded, cases, config.tolerance)
    print(f"{len(chosen)} scans, {scores[0].cases} findings that their reports name")
    for line in as_lines(scores):
        print(line)


if __name__ == "__main__":
    run_entry_point(main)
